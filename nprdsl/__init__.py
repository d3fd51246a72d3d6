"""A language for parallel reasoning: one schema is the parser, the constraint, the scheduler and the mask."""
