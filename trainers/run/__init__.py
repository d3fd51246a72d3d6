"""One training run on disk and in memory: its folder, its session, the tags of its model."""
