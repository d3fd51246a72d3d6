"""`nprdsl` in processes that share out weights by FSDP2 without a GPU, over gloo.

Accelerate shards as it was launched, but only on GPUs, though torch's `fully_shard` works on CPUs
too. Only that decision is another one here; the rest is Accelerate's own.
"""

from __future__ import annotations

import sys
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from nprdsl.cli.main import main

_begin = AcceleratorState.__init__


def sharded(*arguments: object) -> None:
    """`nprdsl` with these arguments."""
    AcceleratorState.__init__ = _begin_sharded  # type: ignore[method-assign]
    try:
        main([*map(str, arguments)])
    finally:
        assert AcceleratorState().distributed_type is DistributedType.FSDP


def _begin_sharded(
    state: AcceleratorState,
    *arguments: Any,
    fsdp_plugin: FullyShardedDataParallelPlugin | None = None,
    **settings: Any,
) -> None:
    _begin(state, *arguments, fsdp_plugin=fsdp_plugin, **settings)
    if fsdp_plugin is not None and state.distributed_type is DistributedType.MULTI_CPU:
        state.fsdp_plugin = fsdp_plugin
        for shared in (AcceleratorState, PartialState):
            shared._shared_state["distributed_type"] = DistributedType.FSDP


if __name__ == "__main__":  # by `accelerate launch`, as docs/training.md says
    sharded(*sys.argv[1:])
