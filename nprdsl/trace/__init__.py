"""From text or token ids to a trace, its execution graph and its layout.

In the order of use: lexemes (content and tag), the parser and the repair of faults, trace and
elements, execution graph, layout; and back from text to token ids (encoding). `journal` is how all
that is written to disk gets there whole.
"""
