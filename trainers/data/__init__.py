"""Data for training and evaluation: files and datasets in, problems and traces out, and an account
of every bad row.

`sources` reads the rows of files, folders and `datasets`; `fields` finds the prompt and the answer
in a row and checks their values; `problems` makes problems and traces of them.
"""
