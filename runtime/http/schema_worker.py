"""A process that reads the schemas of strangers, so that none of them costs a server more than it.

`python -m nprdsl.runtime.http.schema_worker SECONDS BYTES` takes one form of a schema in each
line of its input, as JSON, and answers with a line of JSON: `grammar` (packed), `refused` (what is
wrong with the schema) or `failed` (what is wrong with us). A schema that takes more than SECONDS of
CPU time ends the process by a signal, one that takes more memory than BYTES is refused. Each is
also bound to plain bytes, for what takes long there. See `nprdsl.runtime.http.schema_compiler`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Final

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.runtime.errors import ErrorBoundary
from nprdsl.runtime.http.packed_grammar import pack
from nprdsl.runtime.http.wire_forms import SchemaForm
from nprdsl.schema import Schema
from nprdsl.tokens.vocabulary import Vocabulary

_PATIENCE: Final = 6  # of the clock's seconds to those of the CPU, on a machine that is busy
_NICE: Final = 15  # plain requests come first


def compile_form(line: str) -> dict[str, str]:
    """The answer to one line of input."""
    failure: dict[str, str] = {}

    def failed(error: Exception) -> None:
        failure.update(_told(error))

    with ErrorBoundary(failed):
        schema = SchemaForm.model_validate_json(line).read()
        _try_to_bind(schema)
        return {"grammar": pack(schema.grammar)}
    return failure


def _told(error: Exception) -> dict[str, str]:
    if isinstance(error, MemoryError):
        limit = resource.getrlimit(resource.RLIMIT_AS)[0] >> 20
        return {"refused": f"to read the schema takes more memory than the {limit:,} MB there are"}
    if isinstance(error, ValueError | FileNotFoundError):
        return {"refused": str(error)}
    return {"failed": f"{type(error).__name__}: {error}"}


def _try_to_bind(schema: Schema) -> None:
    """What only the server's vocabulary cannot write is told where that is known."""
    tags = {tag: 256 + i for i, tag in enumerate((*schema.tags, "<|end|>"))}
    vocabulary = Vocabulary({i: bytes([i]) for i in range(256)}, tags, "<|end|>")
    with suppress(SchemaError):
        _ = schema.bind(vocabulary).minimum


def main(seconds: float, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    os.nice(_NICE)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed is no answer
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF, or SIGALRM, ends the process
        signal.setitimer(signal.ITIMER_REAL, seconds * _PATIENCE)
        answer = compile_form(line)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        print(json.dumps(answer), file=answers, flush=True)
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10 > memory // 2:
            break  # the next schema has the whole of it again


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
