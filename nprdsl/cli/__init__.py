"""The command line: `nprdsl run`, `eval`, `check`, `show`, `train` and the other commands.

A command takes its options as one value (`options`), calls the library, and writes to a terminal,
to a pipe, or as JSON. Engines and trainers, and torch with them, are imported when a command runs.
"""
