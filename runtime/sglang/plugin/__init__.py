"""The plugin as SGLang finds it: entry point `nprdsl` in the group `sglang.srt.plugins`.

It runs in every process of a server before that is built. SGLang only logs what fails in a plugin,
so a version that the hooks were not tested with, or a hook that is not in place, ends the process
here with a message. To start a server without the plugin, name others in SGLANG_PLUGINS.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

TESTED: Final = ("0.5.23",)
WITHOUT: Final = "to start the server without it, set SGLANG_PLUGINS to the names of other plugins"


def register() -> None:
    """Hooks SGLang. Raises SystemExit where that cannot work."""
    found = version("sglang")
    if found not in TESTED:
        raise SystemExit(
            f"the plugin nprdsl is tested with SGLang {', '.join(TESTED)}, not with {found}: "
            f"install one of these; {WITHOUT}"
        )
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    from nprdsl.runtime.sglang.http.front import front_hooks
    from nprdsl.runtime.sglang.plugin.hooks import HOOKS

    hooks = HOOKS + front_hooks()
    for target, kind, function in hooks:
        HookRegistry.register(target, function, HookType(kind))
    HookRegistry.apply_hooks()
    missing = [target for target, _, _ in hooks if target not in HookRegistry._patched]
    if missing:
        raise SystemExit(
            f"the plugin nprdsl could not hook {', '.join(missing)} of SGLang {found}; {WITHOUT}"
        )
