"""Which tag may come next: the tag machine, its stack and bounds, and the fields between tags."""
