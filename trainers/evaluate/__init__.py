"""Evaluation: problems to a model, several samples each, and the figures that papers print.

    evaluation = evaluate(engine, schema, problems, samples=8)
    evaluation.figures.accuracy.value

`suites` has the problems, `running` puts them to a model, `figures` and `comparing` say what came
of it, `reports` and `plots` keep it.
"""

from nprdsl.trainers.evaluate.figures import Figures
from nprdsl.trainers.evaluate.runner import Evaluation, evaluate
from nprdsl.trainers.evaluate.samples import Mode, Sample

__all__ = ["Evaluation", "Figures", "Mode", "Sample", "evaluate"]
