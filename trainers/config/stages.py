"""The settings of every stage, as sections of TOML.

One class for each section (`[model]`, `[optimizer]`, …), and one for each stage, which says what
sections it has and what their defaults are. The field names are the keys of the file; a key that is
not known is refused.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from nprdsl.trainers.evaluate.samples import Mode

LOCAL: Final = "local"  # the address of the trained model itself
SamplingMode = Literal[Mode.PARALLEL, Mode.FREE]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
RewardName = Literal["zero", "zero_boxed", "papo", "threadweaver", "parallel_r1", "random"]


class Section(BaseModel):
    """A part of a configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# -- sections --------------------------------------------------------------------------------------


class Attention(StrEnum):
    """How masks reach the model: dense for short rows, the others for long ones on GPUs."""

    DENSE = "dense"
    BLOCKS = "blocks"
    SEGMENTS = "segments"


class LoraSection(Section):
    """Low-rank matrices that are trained in place of the model's own (arXiv:2106.09685). `alpha`:
    what they add is scaled by alpha / rank. `targets`: the names of the matrices, such as `q_proj`;
    by default all in the layers."""

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    targets: tuple[str, ...] = ()


class ModelSection(Section):
    """The model that is trained. `path`: a folder or a hub name. `dtype`: of its weights.
    `add_tags`: make the schema's tags single tokens, with embeddings from their words. `lora`: an
    adapter is trained, and the weights stay as they are."""

    path: str
    dtype: Literal["fp32", "bf16"] = "fp32"
    attention: Attention = Attention.DENSE
    add_tags: bool = False
    lora: LoraSection | None = None


class DataSection(Section):
    """Where rows come from: a file, a folder, a name on the hub. `limit`: at most so many, the
    first. Fields are found by their usual names."""

    source: str
    split: str | None = None
    subset: str | None = None
    prompt_field: str | None = None
    answer_field: str | None = None
    trace_field: str | None = None
    id_field: str | None = None
    limit: PositiveInt | None = None


class PromptSection(Section):
    """How a question becomes a prompt. `chat`: by the model's chat template. `instructions`: with
    the schema's own explanation before it."""

    chat: bool = True
    instructions: bool = False


class Schedule(StrEnum):
    """The learning rate behind the warm-up."""

    CONSTANT = "constant"
    COSINE = "cosine"
    LINEAR = "linear"


class OptimizerKind(StrEnum):
    """AdamW for all parameters, or Muon (arXiv:2502.16982) for the matrices inside the layers,
    which learns from random weights in a third of the tokens."""

    ADAMW = "adamw"
    MUON = "muon"


class OptimizerSection(Section):
    """`betas` and `epsilon` are AdamW's, `momentum` is Muon's. `warmup`: steps, or below 1 a share
    of all steps. `floor`: the last learning rate, as a share of the first. `clip`: the greatest
    norm of the gradient."""

    kind: OptimizerKind = OptimizerKind.ADAMW
    learning_rate: PositiveFloat = 1e-6
    schedule: Schedule = Schedule.CONSTANT
    warmup: NonNegativeFloat = 0.0
    floor: Fraction = 0.0
    weight_decay: NonNegativeFloat = 0.1
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    epsilon: PositiveFloat = 1e-8
    momentum: Fraction = 0.95
    clip: PositiveFloat = 1.0

    def warmup_steps(self, total: int) -> int:
        """The steps over which the learning rate rises."""
        return round(self.warmup * total) if self.warmup < 1 else int(self.warmup)


class RunSection(Section):
    """`output`: the folder of the run. `room`: entries of a packed row; `rows`: more than 1 for
    traces that are not packed, but as many of like length in one forward. `save_every`: steps
    between checkpoints, of which the last `keep` stay; `save_minutes`: there is one at the next
    step, too, where the last is older. `precision`: of the forward, under autocast. `trackers`:
    where metrics go besides, under the name of a `project`. `peak_tflops`: of one device, for the
    share of it that is used."""

    output: str
    seed: NonNegativeInt = 0
    precision: Literal["no", "bf16", "fp16"] = "no"
    room: PositiveInt = 32_768
    rows: PositiveInt = 1
    save_every: PositiveInt = 50
    save_minutes: PositiveFloat | None = None
    keep: PositiveInt = 2
    tensorboard: bool = True
    trackers: tuple[Literal["wandb", "mlflow"], ...] = ()
    project: str = "nprdsl"
    peak_tflops: PositiveFloat | None = None


class EngineSection(Section):
    """What samples. `address`: "local" is the trained model itself in this process, else a server
    as `nprdsl serve` starts it, which is given the weights before every batch: in a folder below
    `weights_folder`, which both machines see, by default in the shared memory of this one."""

    address: str = LOCAL
    weights_folder: str | None = None
    max_kv_tokens: PositiveInt = 65_536
    max_rows: PositiveInt = 512


class RolloutSection(Section):
    """One batch of rollouts: `prompts` questions with `samples` traces each, at temperature 1.

    `mode`: "parallel" is the engine with forks and joins, legal traces only; "free" lets the model
    write on, unconstrained. The run stops where the log-probabilities of rollout and trainer
    differ by more than `mismatch_mean` in the mean, where the divergence of the two policies is
    more than `mismatch_kl` nats for a token, or, if it is given, where one token differs by more
    than `mismatch`.
    """

    prompts: PositiveInt = 16
    samples: PositiveInt = 16
    max_tokens: PositiveInt = 30_000
    depth: NonNegativeInt | None = None
    branches: PositiveInt | None = None
    blocks: NonNegativeInt | None = None
    mode: SamplingMode = Mode.PARALLEL
    mismatch: PositiveFloat | None = None
    mismatch_mean: PositiveFloat = 0.05
    mismatch_kl: PositiveFloat = 0.02

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.mode is Mode.FREE and (self.depth, self.branches, self.blocks) != (None,) * 3:
            raise ValueError("in the mode `free` there is no limit but `max_tokens`")
        return self


class ClipSection(Section):
    """Clip-higher (arXiv:2503.14476, eq. 10) and dual clip (arXiv:1912.09729, eq. 5)."""

    low: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    high: PositiveFloat = 0.28
    dual: Annotated[float, Field(gt=1.0)] = 10.0


class OverlongSection(Section):
    """The reward sinks to `-factor` over the last `buffer` tokens before the limit; 0 is off."""

    buffer: NonNegativeInt = 10
    factor: NonNegativeFloat = 1.0


class EvaluationSection(Section):
    """Held-out problems, put to the model every `every` steps."""

    data: DataSection
    every: PositiveInt = 10
    samples: PositiveInt = 1
    temperature: NonNegativeFloat = 0.0
    max_tokens: PositiveInt = 30_000
    mode: SamplingMode = Mode.PARALLEL
    concurrency: PositiveInt = 256
    seed: NonNegativeInt = 0


# -- stages ----------------------------------------------------------------------------------------


class StageConfig(Section):
    """What every stage has."""

    model: ModelSection
    data: DataSection
    language: str = Field(default="npr", alias="schema")
    prompt: PromptSection = PromptSection()


class TrainingConfig(StageConfig):
    """What every stage that trains has."""

    run: RunSection
    optimizer: OptimizerSection = OptimizerSection()
    evaluation: EvaluationSection | None = None


class TrainingLayout(StrEnum):
    """What a trace is to an imitating model: its execution graph, or one causal sequence."""

    PARALLEL = "parallel"
    CAUSAL = "causal"


class LossTokens(StrEnum):
    """The tokens of a trace that carry loss, in the layout "parallel"."""

    WRITTEN = "written"  # all behind the prompt: a model that writes its tags by itself
    SAMPLED = "sampled"  # those that it chooses under masks; what they force carries none


class _SftOptimizer(OptimizerSection):
    schedule: Schedule = Schedule.COSINE
    warmup: NonNegativeFloat = 0.05
    floor: Fraction = 0.5  # 5e-7; the public script never passes it on


class SftConfig(TrainingConfig):
    """Stage 2, and every other imitation of given traces (arXiv:2512.07461, section 2.3).

    `batch`: traces of one optimizer step, over all processes. `legal` False, with the layout
    "causal", takes illegal traces too. `shuffle` False keeps the order of the data. `loss`: which
    tokens carry it; all do in the layout "causal".
    """

    layout: TrainingLayout = TrainingLayout.PARALLEL
    loss: LossTokens = LossTokens.WRITTEN
    legal: bool = True
    batch: PositiveInt = 8
    shuffle: bool = True
    epochs: PositiveFloat = 1.0
    optimizer: _SftOptimizer = _SftOptimizer()

    @model_validator(mode="after")
    def _check_legal(self) -> Self:
        if not self.legal and self.layout is TrainingLayout.PARALLEL:
            raise ValueError(
                "illegal traces have no graph: `legal` = false needs the layout `causal`"
            )
        return self


class ReinforcementConfig(TrainingConfig):
    """What both stages of reinforcement learning have. `steps`: batches of rollouts; 0 is one pass
    over the data."""

    engine: EngineSection = EngineSection()
    reward: RewardName = "papo"
    rollout: RolloutSection = RolloutSection()
    shuffle: bool = False
    steps: NonNegativeInt = 0


class _ZeroRollout(RolloutSection):
    prompts: PositiveInt = 32
    mode: SamplingMode = Mode.FREE


class _ZeroOptimizer(OptimizerSection):
    schedule: Schedule = Schedule.COSINE
    warmup: NonNegativeFloat = 10
    floor: Fraction = 1e-8
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)


class ZeroConfig(ReinforcementConfig):
    """Stage 1, NPR-Zero by DAPO (arXiv:2512.07461, section 2.2).

    `minibatch`: prompts of one optimizer step. `refills`: how often as many prompts as are missing
    are drawn again, where all samples of a prompt have one reward (dynamic sampling); 0 is off.
    """

    reward: RewardName = "zero"
    rollout: _ZeroRollout = _ZeroRollout()
    shuffle: bool = True
    minibatch: PositiveInt = 1
    refills: NonNegativeInt = 10
    clip: ClipSection = ClipSection()
    overlong: OverlongSection = OverlongSection()
    optimizer: _ZeroOptimizer = _ZeroOptimizer()

    @model_validator(mode="after")
    def _check_minibatch(self) -> Self:
        if self.minibatch > self.rollout.prompts:
            raise ValueError(
                f"`minibatch` is {self.minibatch}, but a batch has {self.rollout.prompts} prompts"
            )
        return self


class _PapoOptimizer(OptimizerSection):
    learning_rate: PositiveFloat = 1e-7
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)


class PapoConfig(ReinforcementConfig):
    """Stage 3, NPR by PAPO (arXiv:2512.07461, section 2.4): one optimizer step for each batch of
    rollouts. `importance_cap`: tokens are weighed by the ratio of their probabilities in trainer
    and engine, at most so much; by default all weigh 1."""

    importance_cap: Annotated[float, Field(ge=1.0)] | None = None
    optimizer: _PapoOptimizer = _PapoOptimizer()


class _SamplePrompt(PromptSection):
    instructions: bool = True


class SampleConfig(StageConfig):
    """Rejection sampling (arXiv:2512.07461, section 2.3): up to `trials` traces of each problem, of
    which the first `keep` that are right and legal stay. `output`: a JSONL file."""

    output: str
    prompt: _SamplePrompt = _SamplePrompt()
    engine: EngineSection = EngineSection()
    mode: SamplingMode = Mode.FREE
    trials: PositiveInt = 8
    keep: PositiveInt = 1
    temperature: PositiveFloat = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    max_tokens: PositiveInt = 32_768
    seed: NonNegativeInt = 0
    concurrency: PositiveInt = 256
