"""Stands before PyPI's torchvision, whose operators are built for CUDA and do not load beside a
torch without it: declares those that its import asks for, then gives its place to the real package.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

import torch

_HERE = Path(__file__).resolve().parents[1]
_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

_operators = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
for _name in ("nms", "qnms"):
    _operators.define(f"{_name}{_BOXES}")  # type: ignore[no-untyped-call]

_spec = PathFinder.find_spec(__name__, [p for p in sys.path if Path(p).resolve() != _HERE])
if _spec is None or _spec.loader is None:
    raise ImportError("torchvision is not installed", name=__name__)
_real = module_from_spec(_spec)
_real._operators = _operators  # type: ignore[attr-defined]  # they are gone when it is collected
sys.modules[__name__] = _real
_spec.loader.exec_module(_real)
