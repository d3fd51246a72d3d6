"""The plugin for SGLang's scheduler: forks and joins branches inside stock SGLang.

SGLang calls `register` in every process of a server before it builds anything (entry point
`nprdsl` in the group `sglang.srt.plugins`). SGLang only logs errors of a plugin, so `register` ends
the process with a message if the plugin was not tested with this version of SGLang or if a hook is
not in place. SGLANG_PLUGINS with the names of other plugins starts a server without this one.
"""

from __future__ import annotations

import multiprocessing
import os
from importlib import import_module
from importlib.metadata import version
from typing import Final

TESTED: Final = ("0.5.23",)  # versions of SGLang
_EVERYWHERE: Final = ("plugin.scheduler_hooks", "plugin.weight_hooks", "http.intake_hooks")
_HTTP: Final = ("http.endpoint_hooks",)
# SGLang's own switch. Without it a row that nothing may be drawn from (a grammar that a vocabulary
# cannot spell, a penalty that divides by 0) ends the server; with it, that request fails.
_FINITE: Final = ("SGLANG_SANITIZE_NAN_LOGITS", "1")
_WITHOUT: Final = "to start the server without it, set SGLANG_PLUGINS to the names of other plugins"


def register() -> None:
    """Hooks SGLang. Raises SystemExit if that cannot work."""
    installed = version("sglang")
    if installed not in TESTED:
        raise SystemExit(
            f"the plugin nprdsl is tested with SGLang {', '.join(TESTED)}, not with {installed}: "
            f"install one of these; {_WITHOUT}"
        )
    from sglang.srt.plugins.hook_registry import HookRegistry

    os.environ.setdefault(*_FINITE)
    wrapped = import_hooks(http=multiprocessing.parent_process() is None)
    HookRegistry.apply_hooks()
    missing = sorted(wrapped - HookRegistry._patched)
    if missing:
        raise SystemExit(
            f"the plugin nprdsl could not hook {', '.join(missing)} of SGLang {installed}; "
            f"{_WITHOUT}"
        )


def import_hooks(*, http: bool = True) -> set[str]:
    """Imports the modules with hooks, which registers these; gives the dotted names of the wrapped
    functions. `http`: those of the process that speaks HTTP too, a server's first one."""
    from sglang.srt.plugins.hook_registry import HookRegistry

    for module in (*_EVERYWHERE, *(_HTTP if http else ())):
        import_module(f"nprdsl.runtime.sglang.{module}")
    return {
        target
        for target, hooks in HookRegistry._hooks.items()
        if any(function.__module__.startswith("nprdsl.") for _, function, _ in hooks)
    }
