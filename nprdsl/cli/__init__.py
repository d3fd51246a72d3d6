"""The command line: `nprdsl run`, `check`, `show`, `fuzz`, `schemas`.

A command reads its options, calls the library, and writes to a terminal, to a pipe, or as JSON.
Only `run` needs torch, and imports it when it is called.
"""
