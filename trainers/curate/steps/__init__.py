"""The five steps of the curator and its judge, each with its prompt, input, output and checks.

parse    sentences -> a tree of steps and parts
group    tree      -> what needs what, and groups that do not
arrange  groups    -> blocks, nested to a depth, that the schema has room for
refill   blocks    -> every sentence in its part, none lost
write    document  -> items, conclusions, self-contained branches: the trace
judge    trace     -> branches that use what a sibling found
"""
