"""Attention over training rows: who sees whom, as a mask, or segment by segment.

`masks` gives a model the mask itself, dense or in blocks; `segments` needs none: it calls a
variable-length kernel once for all segments. All read the same training row and give the same
numbers.
"""
