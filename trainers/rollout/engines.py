"""The engine that writes rollouts, kept at the weights that are trained.

With the address "local" it is the trained model itself, in this process: nothing is copied, unless
weights are shared out over processes (FSDP2); then every process keeps a whole copy of them. A
server, as `nprdsl serve` starts it, is given the weights before every batch, under a version that
names run and step; it may run on other machines, with any parallelism of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from nprdsl.runtime.engine import Engine
from nprdsl.runtime.errors import EngineUnavailableError
from nprdsl.runtime.local.engine import LocalEngine
from nprdsl.runtime.sglang.client.engine import SGLangEngine
from nprdsl.runtime.sglang.client.transport import ServerError
from nprdsl.runtime.sglang.client.weight_files import WeightsError
from nprdsl.trainers.config.stages import LOCAL, EngineSection
from nprdsl.trainers.run.session import Session


@dataclass(frozen=True, slots=True, eq=False)
class RolloutEngine:
    """An engine, and what must be called before it samples."""

    engine: Engine
    refresh: Callable[[], object]


def rollout_engine(section: EngineSection, session: Session) -> RolloutEngine:
    """The engine that a section names, for the model of a session.

    To be made by all processes at once. Raises UnsupportedModelError, EngineUnavailableError, and
    ValueError for a server where an adapter is trained.
    """
    if section.address != LOCAL:
        return _server(section, session)
    if _is_shared_out(session.setup.model):
        return _gathered(section, session)
    return shared_engine(
        session.setup.model,
        session.setup.tokenizer,
        max_kv_tokens=section.max_kv_tokens,
        max_rows=section.max_rows,
    )


def _gathered(section: EngineSection, session: Session) -> RolloutEngine:
    """The local engine over a copy that holds all weights: with those that are shared out, a
    process could sample only as long as all others do."""
    model = session.setup.copied_model()
    held = model.state_dict()

    def gather() -> None:
        for name, weight in _whole_weights(session):
            held[name].copy_(weight)

    gather()  # the engine looks at what the model computes
    engine = shared_engine(
        model,
        session.setup.tokenizer,
        max_kv_tokens=section.max_kv_tokens,
        max_rows=section.max_rows,
    )

    def refresh() -> None:
        gather()
        engine.refresh()

    return RolloutEngine(engine.engine, refresh)


def shared_engine(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_kv_tokens: int,
    max_rows: int,
) -> RolloutEngine:
    """The local engine over a model that is trained. Raises UnsupportedModelError, and ValueError
    where a process has only a part of the weights, as their forwards would wait for each other."""
    if _is_shared_out(model):
        raise ValueError(
            "the local engine cannot sample with weights that are shared out over processes "
            "(FSDP2): keep them whole in each (DDP), or train with `nprdsl train`"
        )
    trained = model.config._attn_implementation
    model.set_attn_implementation("sdpa")  # the probe runs the model's own forward
    engine = LocalEngine(model, tokenizer, max_kv_tokens=max_kv_tokens, max_rows=max_rows)
    model.set_attn_implementation(trained)

    def refresh() -> None:
        model.eval()
        engine.forget()

    return RolloutEngine(engine, refresh)


def _server(section: EngineSection, session: Session) -> RolloutEngine:
    if session.setup.config.model.lora is not None:
        raise ValueError(
            "a server is given whole weights, and `model.lora` trains an adapter beside them: "
            'leave it out, or sample with `engine.address = "local"`'
        )
    engine = SGLangEngine(section.address, tokenizer=session.setup.tokenizer)
    accelerator, run = session.accelerator, session.setup.directory.path.name

    def refresh() -> None:
        """All processes gather the weights, one of them sends them. Where that fails, all go on
        gathering, and raise WeightsError together."""
        weights = _whole_weights(session)
        failed = [""]
        if accelerator.is_main_process:
            try:
                engine.weights.put(
                    weights, version=f"{run}-{session.step}", folder=section.weights_folder
                )
            except (WeightsError, EngineUnavailableError, ServerError) as error:
                failed = [str(error)]
        for _ in weights:
            pass
        broadcast_object_list(failed)
        if failed[0]:
            raise WeightsError(failed[0])

    return RolloutEngine(engine, refresh)


def _whole_weights(session: Session) -> Iterator[tuple[str, Tensor]]:
    """The weights by name, without those that are tied to others. Shares of FSDP2 are gathered one
    by one, as they are asked for by all processes, so that no process holds the whole model."""
    model = session.setup.model
    shared_out = _is_shared_out(model)
    state = (
        model.state_dict() if shared_out else session.accelerator.get_state_dict(session.wrapped)
    )
    for name in sorted(set(state) - set(model.all_tied_weights_keys)):
        weight = state[name]
        yield name, weight.full_tensor() if isinstance(weight, DTensor) else weight


def _is_shared_out(model: PreTrainedModel) -> bool:
    return any(isinstance(weight, DTensor) for weight in model.parameters())
