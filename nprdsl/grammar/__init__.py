"""From the text of a schema to its grammar, or to diagnostics of all that is wrong with it.

`reader` parses a file, `namespaces` and `linking` join it with its imports, `resolve` makes the
nodes of `ir` and pairs the blocks, `checks` and `tag_decisions` judge the result. Terminals get
their expressions in `terminal_patterns`, from types given in Python by way of `terminal_types`:
`json_schema` and `pydantic_types` read a type into a shape (`json_shapes`), `json_patterns` writes
its expression with the parts of `json_numbers` and `json_strings`. `walk` and `first_follow` are
what everybody uses to go through a grammar.
"""
