"""Held-out problems on the way: accuracy and legality of the model that is being trained.

Every process asks its share of the problems, and the figures are those of all: none waits for one
that asks them all, which may take longer than a group of processes has patience for.
"""

from __future__ import annotations

from collections.abc import Sequence

from nprdsl.machine.budget import Limits
from nprdsl.runtime.engine import Engine
from nprdsl.runtime.sampling import Sampling
from nprdsl.trainers.config.stages import EngineSection, EvaluationSection
from nprdsl.trainers.data.problems import Problem
from nprdsl.trainers.evaluate.figures import figures
from nprdsl.trainers.evaluate.runner import NoSampleError, evaluate
from nprdsl.trainers.evaluate.samples import Sample
from nprdsl.trainers.rollout.engines import RolloutEngine, rollout_engine
from nprdsl.trainers.run.session import Session
from nprdsl.trainers.stages.data import of_all, own_share, section_problems


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
        """Of the samples of all processes, the same on each."""
        if self._engine is None:
            self._engine = rollout_engine(EngineSection(), self._session)
        self._engine.refresh()
        accelerator = self._setup.accelerator
        own = own_share(self._problems, accelerator)
        samples = self._samples(section, self._engine.engine, own)
        known = {one.key: one for part in of_all(samples, accelerator) for one in part}
        every = [
            known[problem.id, number, section.mode]
            for problem in self._problems
            for number in range(section.samples)
        ]
        if all(sample.failed for sample in every):
            raise NoSampleError(every)
        found = figures(every, section.mode)
        return {
            "eval/accuracy": found.accuracy.value,
            "eval/legal": found.legal_rate,
            "eval/parallel": found.trigger_rate.value,
            "eval/tokens": found.tokens.value,
            "eval/degree": found.degree.value,
        }

    def _samples(
        self, section: EvaluationSection, engine: Engine, problems: Sequence[Problem]
    ) -> tuple[Sample, ...]:
        """Those of this process's problems; that all of them failed is no error of its own."""
        if not problems:
            return ()
        try:
            return evaluate(
                engine,
                self._setup.schema,
                problems,
                samples=section.samples,
                sampling=Sampling(temperature=section.temperature),
                limits=Limits(max_tokens=section.max_tokens),
                seed=section.seed,
                chat=self._setup.config.prompt.chat,
                instructions=self._setup.config.prompt.instructions,
                modes=(section.mode,),
                concurrency=section.concurrency,
            ).samples
        except NoSampleError as error:
            return error.samples
