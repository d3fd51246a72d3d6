"""Stands in for triton, which SGLang imports everywhere but launches only on a GPU.

Every name exists: capitalised ones are classes, others decorate what they are given, or do nothing.
Submodules of any name can be imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__version__ = "3.7.0"


class _Placeholder:
    """An object of which every attribute is another; called on a function it gives that back."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and callable(args[0]):
            return args[0]
        return lambda function: function

    def __getattr__(self, name: str) -> Any:
        return _attribute(name)


def _attribute(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if name[0].isupper():
        return type(name, (), {"__init__": lambda self, *args, **kwargs: None})
    return _Placeholder(name)


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        value = _attribute(name)
        setattr(self, name, value)
        return value


class _Submodules(MetaPathFinder, Loader):
    """Finds `triton.anything`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{__name__}."):
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


def cdiv(a: int, b: int) -> int:
    """Division rounded up."""
    return -(a // -b)


def next_power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length() if n > 0 else 1


def __getattr__(name: str) -> Any:
    value = _attribute(name)
    setattr(sys.modules[__name__], name, value)
    return value


sys.meta_path.insert(0, _Submodules())
