"""SGLang on a machine without CUDA: what its process has to find, and the options it needs.

SGLang imports `triton`, `sgl_kernel` and `torchvision` on every machine; their kernels need CUDA.
The folders beside this file stand in for them under their names, where `prepare` puts this folder
before all others. SGLang itself stays as it is. Nothing here is used on a machine with CUDA.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

FOLDER: Final = str(Path(__file__).parent)

# Spinning threads of torch make a step of a small model up to twenty times slower on shared cores.
ENVIRONMENT: Final = {
    "SGLANG_USE_CPU_ENGINE": "1",
    "OMP_NUM_THREADS": "1",
    "GOMP_SPINCOUNT": "0",
    "OMP_WAIT_POLICY": "passive",
    "TORCHDYNAMO_DISABLE": "1",  # a plain request with a penalty has SGLang compile, with Triton
}

# Options of `sglang.launch_server` that a CPU needs; what the user gives himself goes before.
OPTIONS: Final = {
    "--device": "cpu",
    "--attention-backend": "torch_native",
    "--sampling-backend": "pytorch",
    "--mem-fraction-static": "0.5",
    "--max-total-tokens": "65536",
    "--sleep-on-idle": "",
}


def has_cuda() -> bool:
    """Whether torch can use a GPU. False where there is no torch."""
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def extend(environment: MutableMapping[str, str]) -> None:
    """Changes the environment of a process that will import SGLang; what is set there stays."""
    for name, value in ENVIRONMENT.items():
        environment.setdefault(name, value)
    before = environment.get("PYTHONPATH", "")
    if FOLDER not in before.split(os.pathsep):
        environment["PYTHONPATH"] = FOLDER + (os.pathsep + before if before else "")


def prepare() -> None:
    """Lets this process, and those that it starts, import SGLang. To be called before that."""
    extend(os.environ)
    if FOLDER not in sys.path:
        sys.path.insert(0, FOLDER)
