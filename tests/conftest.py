"""`golden`, a fixture that compares a text with a file, or writes it under `--update-golden`; no
deadline for the examples of properties, as machines are loaded now and then. Commands under test
heed Ctrl-C although a shell lets what it begins in the background ignore it. Garbage is collected
from the first test on, and what was imported before is never looked at: it stays."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("loaded", deadline=None)
settings.load_profile("loaded")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # which commands would inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)

GOLDEN = Path(__file__).parent / "golden"


gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # libraries tell what they find at the end


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write golden files and the outputs in docs/ anew, instead of comparing",
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str | Path, str], None]:
    """`golden(name, text)`: `text` equals the file `tests/golden/<name>`, byte for byte; an
    absolute path is taken as it is."""
    update = bool(request.config.getoption("--update-golden"))

    def compare(name: str | Path, text: str) -> None:
        path = GOLDEN / name
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} is missing: run pytest --update-golden"
        assert text == path.read_text(encoding="utf-8"), f"{name} differs; see --update-golden"

    return compare
