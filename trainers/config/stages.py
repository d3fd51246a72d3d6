"""What each stage is told."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from nprdsl.trainers.config.sections import (
    DataSection,
    EngineSection,
    EvaluationSection,
    ModelSection,
    OptimizerSection,
    PromptSection,
    RolloutSection,
    RunSection,
    SamplingMode,
    Schedule,
    Section,
    Share,
)
from nprdsl.trainers.evaluate.samples import Mode

RewardName = Literal["zero", "papo", "threadweaver", "parallel_r1", "random"]


class Layout(StrEnum):
    """What a trace is to an imitating model: its execution graph, or one causal sequence."""

    PARALLEL = "parallel"
    CAUSAL = "causal"


class _SftOptimizer(OptimizerSection):
    learning_rate: PositiveFloat = 1e-6
    schedule: Schedule = Schedule.COSINE
    warmup: NonNegativeFloat = 0.05
    floor: Share = 0.5  # 5e-7; the public script never passes it on


class SftConfig(Section):
    """Stage 2, and every other imitation of given traces (arXiv:2512.07461, section 2.3).

    `batch`: traces of one optimizer step, over all processes. `legal` False, with the layout
    "causal", takes illegal traces too. `shuffle` False keeps the order of the data.
    """

    model: ModelSection
    data: DataSection
    run: RunSection
    language: str = Field(default="npr", alias="schema")
    prompt: PromptSection = PromptSection()
    layout: Layout = Layout.PARALLEL
    legal: bool = True
    batch: PositiveInt = 8
    shuffle: bool = True
    epochs: PositiveFloat = 1.0
    optimizer: _SftOptimizer = _SftOptimizer()
    evaluation: EvaluationSection | None = None

    @model_validator(mode="after")
    def _is_legal(self) -> Self:
        if not self.legal and self.layout is Layout.PARALLEL:
            raise ValueError(
                "illegal traces have no graph: `legal` = false needs the layout `causal`"
            )
        return self


class _Reinforced(Section):
    """What both stages of reinforcement learning have. `steps`: batches of rollouts; 0 is one pass
    over the data."""

    model: ModelSection
    data: DataSection
    run: RunSection
    language: str = Field(default="npr", alias="schema")
    prompt: PromptSection = PromptSection()
    engine: EngineSection = EngineSection()
    shuffle: bool = False
    steps: Annotated[int, Field(ge=0)] = 0
    evaluation: EvaluationSection | None = None


class ClipSection(Section):
    """Clip-higher and dual clip of DAPO (arXiv:2503.14476, arXiv:1912.09729)."""

    low: PositiveFloat = 0.2
    high: PositiveFloat = 0.28
    dual: PositiveFloat = 10.0


class OverlongSection(Section):
    """The reward sinks to `-factor` over the last `buffer` tokens before the limit; 0 is off."""

    buffer: Annotated[int, Field(ge=0)] = 10
    factor: NonNegativeFloat = 1.0


class _ZeroRollout(RolloutSection):
    prompts: PositiveInt = 32
    mode: SamplingMode = Mode.FREE


class _ZeroOptimizer(OptimizerSection):
    learning_rate: PositiveFloat = 1e-6
    schedule: Schedule = Schedule.COSINE
    warmup: NonNegativeFloat = 10
    floor: Share = 1e-8
    betas: tuple[Share, Share] = (0.9, 0.999)


class ZeroConfig(_Reinforced):
    """Stage 1, NPR-Zero by DAPO (arXiv:2512.07461, section 2.2).

    `minibatch`: prompts of one optimizer step. `refills`: how often as many prompts as are missing
    are drawn again, where all samples of a prompt have one reward (dynamic sampling); 0 is off.
    """

    reward: RewardName = "zero"
    rollout: _ZeroRollout = _ZeroRollout()
    shuffle: bool = True
    minibatch: PositiveInt = 1
    refills: Annotated[int, Field(ge=0)] = 10
    clip: ClipSection = ClipSection()
    overlong: OverlongSection = OverlongSection()
    optimizer: _ZeroOptimizer = _ZeroOptimizer()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.minibatch > self.rollout.prompts:
            raise ValueError(
                f"`minibatch` is {self.minibatch}, but a batch has {self.rollout.prompts} prompts"
            )
        return self


class _PapoRollout(RolloutSection):
    prompts: PositiveInt = 16


class _PapoOptimizer(OptimizerSection):
    learning_rate: PositiveFloat = 1e-7
    betas: tuple[Share, Share] = (0.9, 0.999)


class PapoConfig(_Reinforced):
    """Stage 3, NPR by PAPO (arXiv:2512.07461, section 2.4): one optimizer step for each batch of
    rollouts."""

    reward: RewardName = "papo"
    rollout: _PapoRollout = _PapoRollout()
    optimizer: _PapoOptimizer = _PapoOptimizer()


class _SamplePrompt(PromptSection):
    instructions: bool = True


class SampleConfig(Section):
    """Rejection sampling (arXiv:2512.07461, section 2.3): up to `trials` traces of each problem, of
    which the first `keep` that are right and legal stay. `output`: a JSONL file."""

    model: ModelSection
    data: DataSection
    output: str
    language: str = Field(default="npr", alias="schema")
    prompt: _SamplePrompt = _SamplePrompt()
    engine: EngineSection = EngineSection()
    mode: SamplingMode = Mode.FREE
    trials: PositiveInt = 8
    keep: PositiveInt = 1
    temperature: PositiveFloat = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    max_tokens: PositiveInt = 32_768
    seed: Annotated[int, Field(ge=0)] = 0
    concurrency: PositiveInt = 256
