"""Import paths of version 0.1 still work, and say where the module is now."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("nprdsl.terminals", "nprdsl.grammar.terminal_types", "typed"),
        ("nprdsl.graph", "nprdsl.trace.graph", "ExecutionGraph"),
        ("nprdsl.layout", "nprdsl.trace.layout", "Layout"),
        ("nprdsl.trainers.losses", "nprdsl.trainers.objective.losses", "papo"),
        ("nprdsl.vocabulary", "nprdsl.tokens.vocabulary", "Vocabulary"),
    ],
)
def test_an_old_path_is_the_same_module(
    old: str, new: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"`{old}` is `{new}` now"):
        moved = importlib.import_module(old)
    assert moved is importlib.import_module(new)
    assert name in vars(moved)


def test_a_path_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("nprdsl.nothing")
