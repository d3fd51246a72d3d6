"""Which bytes a regular expression accepts.

Regexes in Python syntax become deterministic automata over bytes. The bottom layer: grammar, tokens
and masks build on it, and it knows nothing of schemas.
"""
