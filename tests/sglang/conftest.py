"""One server for all tests of this folder, in this process's children; skipped without SGLang.

Run by `make test-sglang`, in a virtual environment of its own. The pool is small and SGLang's own
strict check of memory is on, so that a slot that is lost ends the server and the tests with it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nprdsl.runtime.sglang import cpu

HAS_SGLANG = importlib.util.find_spec("sglang") is not None
collect_ignore_glob = [] if HAS_SGLANG else ["test_*.py"]

if HAS_SGLANG:
    if not cpu.has_cuda():
        cpu.prepare()
    os.environ.setdefault("SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY", "1")
    os.environ.setdefault("SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # A row's products round alike whatever rows are beside it: else requests that have nothing to
    # do with each other differ in their last bits, on a server without the plugin too.
    os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")

    from nprdsl.runtime import LocalEngine
    from tests.sglang.models import make_model
    from tests.sglang.served import bundled as bundled
    from tests.sglang.served import engine as engine
    from tests.sglang.served import served as served
    from tests.sglang.server import Server
    from tests.sglang.tight import tight as tight

    @pytest.fixture(scope="session")
    def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The folder of a tiny random model."""
        return make_model(tmp_path_factory.mktemp("tiny"))

    @pytest.fixture(scope="session")
    def server(tiny: Path) -> Iterator[Server]:
        """The server of the session."""
        started = Server(tiny)
        yield started
        started.stop()

    @pytest.fixture(scope="session")
    def local(tiny: Path) -> LocalEngine:
        """The local engine with the same model, in fp32."""
        return LocalEngine.from_pretrained(tiny, dtype="fp32")

    @pytest.fixture(autouse=True)
    def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
        """After every test on a server, nothing runs there and every slot is back."""
        yield
        for name in {"server", "served"}.intersection(request.fixturenames):
            request.getfixturevalue(name).settle()
