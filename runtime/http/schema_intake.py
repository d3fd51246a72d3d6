"""Takes in the schemas of requests: which are let in, and where they are read.

In goes the form of a schema that a client sent, out comes its grammar, packed. Forms that are the
server's own are read here, those of strangers by processes of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nprdsl.runtime.http.packed_grammar import pack
from nprdsl.runtime.http.refusals import refusing
from nprdsl.runtime.http.schema_compiler import SchemaCompiler
from nprdsl.runtime.http.schema_register import SchemaRegister, registered
from nprdsl.runtime.http.serving_settings import ServingSettings
from nprdsl.runtime.http.wire_forms import SchemaForm
from nprdsl.runtime.metrics import Told, untold


class SchemaIntake:
    """One for each server, used from one event loop; `host` is what it listens on; `told`: whom
    each schema of a client is told to. Raises ValueError where its folder of schemas cannot be
    registered."""

    def __init__(self, settings: ServingSettings, host: str, told: Told = untold) -> None:
        own = registered(settings.schema_folder) if settings.schema_folder else {}
        self.register = SchemaRegister(settings.policy(host), own)
        self._compiler = SchemaCompiler(deadline_s=settings.schema_timeout, told=told)
        self._own = lru_cache(_read)

    async def packed(self, given: SchemaForm, client: str) -> str:
        """The grammar of the form. Raises RefusedError, or PreparationError where we are to
        blame."""
        form = self.register.form(given)
        if self.register.is_own(form):
            with refusing():
                return self._own(form)
        return await self._compiler.packed(form, client)

    async def close(self) -> None:
        """Ends the processes that read schemas."""
        await self._compiler.close()


def checked_settings(given: Mapping[str, Any]) -> ServingSettings:
    """The settings of a command line, with a folder of schemas that can be registered. Raises
    ValueError that names the option."""
    try:
        settings = ServingSettings.model_validate(given)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = f"--{str(fault['loc'][0]).replace('_', '-')}"
        raise ValueError(f"{name} is {fault['input']!r}: {fault['msg']}") from error
    if not settings.schema_folder:
        return settings
    folder = Path(settings.schema_folder).resolve()
    registered(folder)
    return settings.model_copy(update={"schema_folder": str(folder)})


@refusing()
def _read(form: SchemaForm) -> str:
    return pack(form.read().grammar)
