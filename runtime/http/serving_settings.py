"""What the plugin itself is told at start, beside SGLang's options: which schemas are taken, how
long one may be read, and how plain requests and traces share the machine.

`nprdsl serve` takes them from its command line. They reach the server's processes in one variable
of the environment, which a server that is started otherwise may set too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from nprdsl.runtime.http.listening import is_loopback

VARIABLE: Final = "NPRDSL_SERVING"  # JSON of the settings
MAX_BODY: Final = 8.0


class SchemaPolicy(StrEnum):
    """Whose schemas a server takes."""

    SHIPPED = "shipped"  # those of this package
    REGISTERED = "registered"  # and those of the server's own folder
    ANY = "any"  # and whatever a client sends


class ServingSettings(BaseModel):
    """`schemas` None: any on an address of this machine alone, else those that are registered.
    `schema_folder`: its `.lark` files are registered. `schema_timeout`: seconds in which a client's
    schema must be read. `trace_share`: of the steps in which both traces and plain requests wait,
    so many (a number from 0 to 1) are given to traces first; None: as they came. `max_body`:
    megabytes that a request's body may have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schemas: SchemaPolicy | None = None
    schema_folder: str = ""
    schema_timeout: Annotated[float, Field(gt=0, le=600)] = 5.0
    trace_share: Annotated[float, Field(ge=0, le=1)] | None = None
    max_body: Annotated[float, Field(gt=0)] = MAX_BODY

    @classmethod
    def of_environment(cls) -> ServingSettings:
        """Raises pydantic.ValidationError, a ValueError."""
        return cls.model_validate_json(os.environ.get(VARIABLE) or "{}")

    def environment(self) -> Mapping[str, str]:
        return {VARIABLE: self.model_dump_json()}

    def policy(self, host: str) -> SchemaPolicy:
        """Of a server that listens on this address."""
        if self.schemas is not None:
            return self.schemas
        return SchemaPolicy.ANY if is_loopback(host) else SchemaPolicy.REGISTERED
