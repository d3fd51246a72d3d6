"""Which token may come next: the automaton over token ids, its masks, forced runs and costs."""
