"""Writes weights as a checkpoint that a server can load: safetensors files, one bucket each.

In go tensors by name, of which one bucket is held at a time, so that they may be gathered one by
one; out come the files in a folder. A server on the same machine reads them from shared memory
without a copy, however many ranks it has; others read them from a folder that both machines see.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BUCKET: Final = 10**8  # bytes; SGLang reads ten files at once, which are 1 GB
_SHARED_MEMORY: Final = Path("/dev/shm")
_HEADER: Final = 10**6  # bytes that the header of a file takes at most


class WeightsError(RuntimeError):
    """The server did not take the weights; the message says whether it keeps those it had."""


@contextmanager
def written(
    tensors: Iterable[tuple[str, Tensor]], parent: str | Path | None, dtype: torch.dtype, most: int
) -> Iterator[Path]:
    """A folder below `parent`, by default in shared memory, with the weights in files of `most`
    bytes (a larger tensor has one of its own), floats as `dtype`. It goes at the end. Raises
    WeightsError where there is no room or no folder."""
    if parent is None:
        parent = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else gettempdir()
    with ExitStack() as removed:
        try:
            folder = Path(
                removed.enter_context(TemporaryDirectory(prefix="nprdsl-weights-", dir=parent))
            )
            for number, bucket in enumerate(_buckets(tensors, dtype, most), 1):
                _write(bucket, folder / f"model-{number:05d}.safetensors")
        except OSError as error:
            raise WeightsError(f"the weights cannot be written below {parent}: {error}") from error
        yield folder


def _buckets(
    tensors: Iterable[tuple[str, Tensor]], dtype: torch.dtype, most: int
) -> Iterator[dict[str, Tensor]]:
    bucket: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        coming = tensor.numel() * kind.itemsize
        if bucket and size + coming > most:
            yield bucket
            bucket, size = {}, 0
        bucket[name] = tensor.detach().to("cpu", kind, copy=True).contiguous()
        size += coming
    if bucket:
        yield bucket


def _write(bucket: dict[str, Tensor], file: Path) -> None:
    """Raises WeightsError where the disk has no room for it: shared memory that is full would end
    other processes too."""
    from safetensors.torch import save_file

    size = sum(tensor.nbytes for tensor in bucket.values()) + _HEADER
    free = shutil.disk_usage(file.parent).free
    if free < size:
        raise WeightsError(
            f"{file.parent} has room for {free / 1e6:,.0f} MB more, and the next "
            f"{size / 1e6:,.0f} MB of weights do not fit: name another folder that the server sees "
            "(`put(folder=…)`, `engine.weights_folder`)"
        )
    save_file(bucket, file)
