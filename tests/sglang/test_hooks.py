"""The functions of SGLang that the plugin wraps are the tested ones: parameters and source."""

from __future__ import annotations

from pathlib import Path

import pytest
import sglang

from nprdsl.runtime.sglang import plugin
from nprdsl.runtime.sglang.compat import HookState, compared, tested_hooks

FOLDER = Path(sglang.__file__).parents[1]
REMEDY = "read what changed, then: python -m nprdsl.runtime.sglang.compat --record"


def test_every_wrapped_function_is_in_the_table() -> None:
    assert set(tested_hooks()) == plugin.import_hooks(), REMEDY


@pytest.mark.parametrize("name", sorted(tested_hooks()))
def test_the_function_is_the_tested_one(name: str) -> None:
    assert compared(plugin.TESTED[-1], FOLDER).states[name] is HookState.SAME, REMEDY
