"""From text or token ids to a trace, its execution graph and its layout."""
