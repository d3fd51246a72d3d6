"""Data for training and evaluation: problems and traces, with an account of every bad row.

`sources` reads rows of files, folders and `datasets`; `fields` finds the prompt and the answer in
them; `problems` checks the rows one by one.
"""
