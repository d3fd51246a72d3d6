"""From the text of a schema to a resolved grammar, or to diagnostics of all that is wrong.

`reader` parses, `imports` and `linking` gather files, `resolve` types and pairs, the checks judge.
"""
