"""Rewards: every score comes with its reasons.

`format` scores the violations of a trace, `accuracy` its answer, `parallelism` its graph; `presets`
puts them together as the published systems do.
"""
