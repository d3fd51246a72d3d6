"""Stands in for SGLang's kernels, which are built for CUDA: every name can be imported, and refuses
to be called. SGLang then takes its paths in plain torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

__version__ = "0.0.0"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("__"):
        raise AttributeError(name)

    def kernel(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name} needs CUDA")

    kernel.__name__ = name
    return kernel
