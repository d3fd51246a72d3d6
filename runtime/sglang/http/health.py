"""`/health` as soon as SGLang knows: its own waits a whole second before it looks whether anything
came back from the scheduler.

In goes a request, out comes the answer of SGLang's own check, or a 200 at the first sign of life
after the request. Load balancers ask often and give little time.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from fastapi import Request, Response
from sglang.srt.entrypoints.http_server import health_generate

LOOK_S: Final = 0.02

_checks: set[asyncio.Task[Response]] = set()  # a task that nobody holds may vanish


async def first_sign(manager: Any, request: Request) -> Response:
    """SGLang's own check goes on to its end behind an early answer: it takes back what it asked."""
    begun = time.time()
    check = asyncio.create_task(health_generate(request))
    _checks.add(check)
    check.add_done_callback(_checks.discard)
    while not check.done():
        await asyncio.wait([check], timeout=LOOK_S)
        if manager.last_receive_tstamp > begun:
            return Response(status_code=200)
    return check.result()
