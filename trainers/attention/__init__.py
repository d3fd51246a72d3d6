"""Attention over training rows: who sees whom, as a dense mask, as blocks, or segment by segment.

`dense` is the oracle and serves short rows; `blocks` is for FlexAttention; `segments` calls any
variable-length kernel once for all segments. All read the same row and give the same numbers.
"""
