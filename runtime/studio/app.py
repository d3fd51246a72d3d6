"""The studio as an ASGI application: its page, questions about schemas, and runs.

    app = make_studio(LocalEngine.from_pretrained("arith"), StudioSettings(model="arith"))

All paths lie under /studio, so that it can stand beside other routes of one server. The page needs
the token in its address, or the password where there is one; everything else needs the token, which
the page has, in a header that no other site can send. A page from elsewhere, or another user of the
machine, has neither.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from nprdsl.grammar.terminal_types import TerminalType
from nprdsl.runtime.studio.runs import RunRequest, run_messages
from nprdsl.runtime.studio.schema_desk import SchemaDesk
from nprdsl.runtime.studio.schema_questions import FILE, Ask, SchemaQuestion
from nprdsl.studio.lanes import StudioView
from nprdsl.studio.pages import served_page

if TYPE_CHECKING:
    from nprdsl.runtime.engine import Engine

HEADER = "x-nprdsl-studio"
_ASKS = {"www-authenticate": 'Basic realm="nprdsl studio", charset="UTF-8"'}


class ShippedSchema(StudioView):
    name: str
    text: str
    prompt: str  # one to begin with; may be empty


class StartView(StudioView):
    """What the page begins with: the model, the schemas there are, the one to show first, the files
    of traces that it can have by name, and the token that it sends."""

    kind: str = "studio"
    version: int = 1
    model: str
    schemas: tuple[ShippedSchema, ...]
    first: int
    files: tuple[str, ...] = ()
    token: str


@dataclass(frozen=True, slots=True)
class StudioSettings:
    """`first` is the name of the schema that is shown first, `file` its path, beside which its
    imports are looked for; `types` are those of declared terminals; `files` are files of traces, by
    the names that they are shown under, and read anew whenever a page asks for one. With a
    `password` whoever opens the page is asked for it, by any name."""

    model: str
    schemas: tuple[ShippedSchema, ...]
    first: str
    files: Mapping[str, Path] = field(default_factory=dict)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    password: str = ""
    file: str = FILE
    types: Mapping[str, TerminalType] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.first not in {schema.name for schema in self.schemas}:
            raise ValueError(
                f"the studio begins with `{self.first}`, which is not among its schemas"
            )


def make_studio(engine: Engine, settings: StudioSettings) -> Starlette:
    """The application over one engine."""
    studio = _Studio(engine, settings)
    return Starlette(routes=studio.routes, lifespan=studio.lifespan)


class _Studio:
    def __init__(self, engine: Engine, settings: StudioSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._desk = SchemaDesk(
            engine.vocabulary, settings.model, file=settings.file, types=settings.types
        )

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/studio/", self._page),
            Route("/studio/ask", self._ask, methods=["POST"]),
            Route("/studio/run", self._run, methods=["POST"]),
        ]

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        await self._desk.start()
        try:
            yield
        finally:
            await self._desk.close()

    async def _page(self, request: Request) -> Response:
        settings = self._settings
        if settings.password:
            if not _same(_password(request), settings.password):
                return PlainTextResponse("the password of this studio is missing", 401, _ASKS)
        elif not self._is_known(request.query_params.get("token", "")):
            return _refused(
                "the address lacks its token: take it from where the studio was started"
            )
        names = [schema.name for schema in settings.schemas]
        start = StartView(
            model=settings.model,
            schemas=settings.schemas,
            first=names.index(settings.first),
            files=tuple(settings.files),
            token=settings.token,
        )
        html, policy = served_page(start.model_dump_json())
        headers = {
            "content-security-policy": policy,
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
        }
        return HTMLResponse(html, headers=headers)

    async def _ask(self, request: Request) -> Response:
        question = await self._read(request, SchemaQuestion)
        if isinstance(question, Response):
            return question
        file = self._settings.files.get(question.file)
        if question.ask is Ask.ROWS and file is not None:
            try:
                data = await asyncio.to_thread(file.read_bytes)
            except OSError as error:
                return JSONResponse({"failed": f"cannot read `{file}`: {error.strerror}"})
            question = question.model_copy(update={"text": data.decode("utf-8", "replace")})
        return Response(await self._desk.ask(question), media_type="application/json")

    async def _run(self, request: Request) -> Response:
        asked = await self._read(request, RunRequest)
        if isinstance(asked, Response):
            return asked
        messages = run_messages(self._engine, asked, self._settings.file, self._settings.types)
        return StreamingResponse(messages, media_type="text/event-stream")

    async def _read(self, request: Request, model: type[Any]) -> Any:
        """The body as that model, or the refusal."""
        if not self._is_known(request.headers.get(HEADER, "")):
            return _refused("the token is missing or wrong: open the address again")
        try:
            return model.model_validate_json(await request.body())
        except ValidationError as error:
            return JSONResponse({"error": _said(error)}, status_code=400)

    def _is_known(self, token: str) -> bool:
        return _same(token, self._settings.token)


def _same(given: str, secret: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "replace"), secret.encode())


def _password(request: Request) -> str:
    """What a browser was given for the page, by any name; empty without any."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(given).decode().partition(":")[2]
    except ValueError:
        return ""


def _refused(why: str) -> Response:
    return JSONResponse({"error": why}, status_code=403)


def _said(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
