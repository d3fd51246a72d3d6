"""Which token may come next: the automaton over token ids, its masks, forced runs and costs.

From the bytes of a field (parts, fields) to rows of masks, to the automaton that moves from tag to
tag, to the matcher of one branch and the schema that is bound to a vocabulary.
"""
