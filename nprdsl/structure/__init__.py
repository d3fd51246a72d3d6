"""Which tag may come next: the tag machine, its stack and bounds, and the fields between tags.

Here a grammar becomes a machine that reads a trace tag by tag; it knows nothing of tokens. The
parser (`nprdsl.trace`), the token automaton (`nprdsl.masks`) and the fork/join machine
(`nprdsl.machine`) run on it.
"""
