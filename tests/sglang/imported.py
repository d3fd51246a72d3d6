"""What a process of SGLang has imported and hooked before it begins; forked ones begin with it.

What is here lives as long as the process, so that the collections of garbage that SGLang asks for
whenever its cache is flushed need not look at it: they take half a second otherwise.
"""

from __future__ import annotations

import gc
from importlib import import_module
from typing import Any

from sglang.srt.managers import data_parallel_controller
from sglang.srt.plugins.hook_registry import HookRegistry

from nprdsl.runtime.sglang.plugin import import_hooks

WAIT_MS = 100

_receive = data_parallel_controller.sock_recv


def _awaited(socket: Any, **options: Any) -> Any:
    """The controller of replicas asks for requests without a pause, which keeps a core busy."""
    socket.poll(WAIT_MS)
    return _receive(socket, **options)


data_parallel_controller.sock_recv = _awaited
for part in ("detokenizer_manager", "scheduler"):
    import_module(f"sglang.srt.managers.{part}")
import_hooks(http=False)
HookRegistry.apply_hooks()
gc.collect()
gc.freeze()
