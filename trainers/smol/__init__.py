"""smol: SmolLM2-135M-Instruct learns to reason in parallel, in English, on everyday word problems.

`questions` draws the problems with their solutions; `families` has their worlds, `parts` their
chains, `worked` their arithmetic; `command` is the recipe, from the base to the evaluations.
"""
