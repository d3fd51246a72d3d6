"""Training from the same graph: masks, positions, rewards and losses."""
