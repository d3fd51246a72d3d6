"""The curriculum: a model of a million parameters learns to reason in parallel on a laptop's CPU,
from random weights through all stages.

    python -m nprdsl.trainers.curriculum --out runs/curriculum

`arithmetic` is its task and what the model reads first, `recipe` the stages, `report` the table and
the picture.
"""
