"""Held-out problems on the way: accuracy and legality of the model that is being trained."""

from __future__ import annotations

from nprdsl.machine.budget import Limits
from nprdsl.runtime.sampling import Sampling
from nprdsl.trainers.config.sections import EngineSection, EvaluationSection, PromptSection
from nprdsl.trainers.evaluate.runner import evaluate
from nprdsl.trainers.rollout.engines import Sampler, sampler
from nprdsl.trainers.run.session import Session
from nprdsl.trainers.stages import setup
from nprdsl.trainers.stages.setup import Setup


class Validation:
    """Asked before each step; it answers at every `every`th, the first included."""

    def __init__(
        self,
        section: EvaluationSection | None,
        prompt: PromptSection,
        begun: Setup,
        session: Session,
        engine: Sampler | None = None,
    ) -> None:
        self._section = section
        self._prompt = prompt
        self._begun = begun
        self._session = session
        self._sampler = engine
        if section is not None:
            self._problems, _ = setup.problems(section.data)

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
        engine = self._engine()
        engine.refresh()
        found: dict[str, float] = {}
        if self._begun.accelerator.is_main_process:
            made = evaluate(
                engine.engine,
                self._begun.schema,
                self._problems,
                samples=section.samples,
                sampling=Sampling(temperature=section.temperature),
                limits=Limits(max_tokens=section.max_tokens),
                seed=section.seed,
                chat=self._prompt.chat,
                instructions=self._prompt.instructions,
                modes=(section.mode,),
                concurrency=section.concurrency,
            ).figures
            found = {
                "eval/accuracy": made.accuracy.value,
                "eval/legal": made.legal_rate,
                "eval/parallel": made.trigger_rate.value,
                "eval/tokens": made.tokens.value,
                "eval/degree": made.degree.value,
            }
        self._begun.accelerator.wait_for_everyone()
        return found

    def _engine(self) -> Sampler:
        if self._sampler is None:
            session = self._session
            self._sampler = sampler(
                EngineSection(), self._begun.accelerator, session.model, session.wrapped,
                session.tokenizer,
            )  # fmt: skip
        return self._sampler
