"""Which bytes a regular expression accepts.

The bottom layer: it knows nothing of schemas. `syntax` reads a regex, `dfa` makes it a
deterministic automaton over bytes, `codepoints` spells sets of characters in UTF-8, and
`aho_corasick` finds several words at once.
"""
