"""The schemas that a server knows by name, and which others it takes.

Shipped schemas are known everywhere; the `.lark` files of a folder are registered under their names
when the server starts. A form that a client sends is answered with the form that is to be read, or
refused by the policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from nprdsl.grammar.diagnostics import SchemaError, did_you_mean
from nprdsl.grammar.linking import link
from nprdsl.grammar.reader import read, read_text
from nprdsl.grammar.tag_shapes import PREFIX
from nprdsl.grammar.terminal_patterns import FREE_TEXT
from nprdsl.runtime.http.refusals import RefusedError
from nprdsl.runtime.http.serving_settings import SchemaPolicy
from nprdsl.runtime.http.wire_forms import SchemaForm
from nprdsl.schema import load, shipped

_SHIPPED_ONLY: Final = "this server takes shipped schemas only"
_KNOWN_ONLY: Final = "this server takes shipped and registered schemas only"


class SchemaRegister:
    """The schemas of one server. `forms`: those that are registered, by name."""

    def __init__(self, policy: SchemaPolicy, forms: Mapping[str, SchemaForm] | None = None) -> None:
        self._policy = policy
        self._forms = {} if policy is SchemaPolicy.SHIPPED else dict(forms or {})
        self._texts = {_text(form): form for form in self._forms.values()}

    @property
    def names(self) -> tuple[str, ...]:
        """All schemas that a request can name."""
        return tuple(sorted({*shipped(), *self._forms}))

    @property
    def forms(self) -> tuple[SchemaForm, ...]:
        """Their forms, in the order of the names."""
        return tuple(self._forms.get(name, SchemaForm(name=name)) for name in self.names)

    def form(self, given: SchemaForm) -> SchemaForm:
        """The form to read for one that a client sent. Raises RefusedError."""
        if given.source:
            if self._policy is not SchemaPolicy.ANY and _text(given) not in self._texts:
                is_open = self._policy is SchemaPolicy.REGISTERED
                told = _KNOWN_ONLY if is_open else _SHIPPED_ONLY
                raise RefusedError(f"{told} (--schemas {self._policy}): {', '.join(self.names)}")
            return given
        known = self._forms.get(given.name)
        if known is not None:
            return known.model_copy(update={"terminals": known.terminals | given.terminals})
        if given.name not in shipped():
            hint = did_you_mean(given.name, self.names) or f"known: {', '.join(self.names)}"
            raise RefusedError(f"no schema is named `{given.name}`; {hint}")
        return given

    def is_own(self, form: SchemaForm) -> bool:
        """Whether all of the form is the server's, so that nothing in it is a stranger's."""
        return form == self._forms.get(form.name) or form == SchemaForm(name=form.name)


def registered(folder: str | Path) -> dict[str, SchemaForm]:
    """The forms of all `.lark` files of a folder by name, without those that others import. The
    types of terminals that a schema declares come with each request.

    Raises ValueError (of which a SchemaError is one) for a file that cannot be registered.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"there is no folder of schemas `{folder}`")
    forms: dict[str, SchemaForm] = {}
    faults: dict[str, SchemaError] = {}
    for path in sorted(Path(folder).glob("*.lark")):
        if path.stem in shipped():
            raise ValueError(f"`{path}` has the name of a shipped schema: give it another")
        try:
            schema = load(path, _stand_ins(path))
        except SchemaError as error:
            faults[path.name] = error
        else:
            form = SchemaForm.of(schema)
            forms[path.stem] = form.model_copy(update={"terminals": {}})
    imported = {name for form in forms.values() for name in form.imports}
    for name in faults.keys() - imported:
        raise faults[name]
    return {name: form for name, form in forms.items() if f"{name}.lark" not in imported}


def _stand_ins(path: Path) -> dict[str, str]:
    """A type for each terminal that the schema declares: to read it, any will do."""
    return dict.fromkeys(_typed_terminals(read_text(path), str(path), None), "[0-9]+")


def open_terminals(form: SchemaForm) -> tuple[str, ...]:
    """The declared terminals of a schema that each request has to give types to. Raises
    SchemaError."""
    names = _typed_terminals(form.text, f"{form.name}.lark", form.imports)
    return tuple(name for name in names if name not in form.terminals)


def _typed_terminals(source: str, file: str, imports: Mapping[str, str] | None) -> list[str]:
    declared = link(read(source, file), imports).declared
    return [n for n in declared if n not in FREE_TEXT and not n.startswith((PREFIX, "_"))]


def _text(form: SchemaForm) -> tuple[str, frozenset[tuple[str, str]]]:
    return form.source, frozenset(form.imports.items())
