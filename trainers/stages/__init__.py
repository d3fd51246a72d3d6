"""The stages of NPR, each one function of its configuration: `sft`, `zero`, `papo`, `sample`.

Every stage goes on where it was killed, and gives the folder of what it made.
"""
