"""Held-out problems on the way: accuracy and legality of the model that is being trained."""

from __future__ import annotations

from nprdsl.machine.budget import Limits
from nprdsl.runtime.sampling import Sampling
from nprdsl.trainers.config.stages import EngineSection, EvaluationSection
from nprdsl.trainers.evaluate.runner import evaluate
from nprdsl.trainers.rollout.engines import RolloutEngine, rollout_engine
from nprdsl.trainers.run.session import Session
from nprdsl.trainers.stages.data import section_problems


class Validation:
    """Evaluates before every `every`th step, the first included, and behind the last.

    `engine`: that of a stage's rollouts; else one is made when it is first needed.
    """

    def __init__(self, session: Session, engine: RolloutEngine | None = None) -> None:
        self._setup = session.setup
        self._session = session
        self._engine = engine
        self._section = session.setup.config.evaluation
        if self._section is not None:
            self._problems, _ = section_problems(self._section.data)

    def metrics(self) -> dict[str, float]:
        """What stands beside the metrics of the coming step: figures of the model before it."""
        section = self._section
        if section is None or self._session.step % section.every:
            return {}
        return self._figures(section)

    def last(self) -> None:
        """Logs the figures of the trained model."""
        if self._section is not None:
            self._session.log(self._figures(self._section))

    def _figures(self, section: EvaluationSection) -> dict[str, float]:
        """All processes keep the same weights; one of them asks."""
        if self._engine is None:
            self._engine = rollout_engine(EngineSection(), self._session)
        self._engine.refresh()
        metrics: dict[str, float] = {}
        if self._setup.accelerator.is_main_process:
            figures = evaluate(
                self._engine.engine,
                self._setup.schema,
                self._problems,
                samples=section.samples,
                sampling=Sampling(temperature=section.temperature),
                limits=Limits(max_tokens=section.max_tokens),
                seed=section.seed,
                chat=self._setup.config.prompt.chat,
                instructions=self._setup.config.prompt.instructions,
                modes=(section.mode,),
                concurrency=section.concurrency,
            ).figures
            metrics = {
                "eval/accuracy": figures.accuracy.value,
                "eval/legal": figures.legal_rate,
                "eval/parallel": figures.trigger_rate.value,
                "eval/tokens": figures.tokens.value,
                "eval/degree": figures.degree.value,
            }
        self._setup.accelerator.wait_for_everyone()
        return metrics
