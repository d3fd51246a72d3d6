"""What a model is told of a schema: an instruction in words, and an example."""
