"""Parts of a configuration that several stages have."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from nprdsl.trainers.evaluate.samples import Mode

SamplingMode = Literal[Mode.PARALLEL, Mode.FREE]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
LOCAL = "local"


class Section(BaseModel):
    """Frozen; a key that is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AttentionKind(StrEnum):
    """How masks reach the model: dense for short rows, the others for long ones on GPUs."""

    DENSE = "dense"
    BLOCKS = "blocks"
    SEGMENTS = "segments"


class ModelSection(Section):
    """The model that is trained. `path`: a folder or a hub name. `dtype`: of its weights.
    `add_tags`: make the schema's tags single tokens, with embeddings from their words."""

    path: str
    dtype: Literal["fp32", "bf16"] = "fp32"
    attention: AttentionKind = AttentionKind.DENSE
    add_tags: bool = False


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
    """`betas` and `epsilon` are AdamW's, `momentum` is Muon's. `warmup`: steps, or below
    1 a share of all steps. `floor`: the last learning rate, as a share of the first. `clip`: the
    greatest norm of the gradient."""

    kind: OptimizerKind = OptimizerKind.ADAMW
    learning_rate: PositiveFloat = 1e-6
    schedule: Schedule = Schedule.CONSTANT
    warmup: Annotated[float, Field(ge=0.0)] = 0.0
    floor: Share = 0.0
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1
    betas: tuple[Share, Share] = (0.9, 0.95)
    epsilon: PositiveFloat = 1e-8
    momentum: Share = 0.95
    clip: PositiveFloat = 1.0

    def warmup_steps(self, total: int) -> int:
        """The steps over which the learning rate rises."""
        return round(self.warmup * total) if self.warmup < 1 else int(self.warmup)


class RunSection(Section):
    """`output`: the folder of the run. `room`: entries of a packed row; `rows`: more than 1 for
    traces that are not packed, but as many of like length in one forward. `save_every`: steps
    between checkpoints, of which the last `keep` stay. `precision`: of the forward, under
    autocast."""

    output: str
    seed: Count = 0
    precision: Literal["no", "bf16", "fp16"] = "no"
    room: PositiveInt = 32_768
    rows: PositiveInt = 1
    save_every: PositiveInt = 50
    keep: PositiveInt = 2
    tensorboard: bool = True


class EngineSection(Section):
    """What samples. `address`: "local" is the trained model itself in this process, else a server
    as `nprdsl serve` starts it, which is given the weights before every batch."""

    address: str = LOCAL
    max_kv_tokens: PositiveInt = 65_536
    max_rows: PositiveInt = 512


class RolloutSection(Section):
    """One batch of rollouts: `prompts` questions with `samples` traces each, at temperature 1.

    `mode`: "parallel" is the engine with forks and joins, legal traces only; "free" lets the model
    write on, unconstrained. `mismatch`: the greatest difference between a log-probability of
    rollout and trainer; beyond it the run stops.
    """

    prompts: PositiveInt = 16
    samples: PositiveInt = 16
    max_tokens: PositiveInt = 30_000
    depth: Count | None = None
    branches: PositiveInt | None = None
    blocks: Count | None = None
    mode: SamplingMode = Mode.PARALLEL
    mismatch: PositiveFloat = 0.5

    @model_validator(mode="after")
    def _is_known(self) -> RolloutSection:
        if self.mode is Mode.FREE and (self.depth, self.branches, self.blocks) != (None,) * 3:
            raise ValueError("in the mode `free` there is no limit but `max_tokens`")
        return self


class EvaluationSection(Section):
    """Held-out problems, put to the model every `every` steps."""

    data: DataSection
    every: PositiveInt = 10
    samples: PositiveInt = 1
    temperature: Annotated[float, Field(ge=0.0)] = 0.0
    max_tokens: PositiveInt = 30_000
    mode: SamplingMode = Mode.PARALLEL
    concurrency: PositiveInt = 256
    seed: Count = 0
