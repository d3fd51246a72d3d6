"""The files of a schema, and which names each of them knows.

A namespace holds what one file defines, declares and imports. Imports are found and read when a
name from them is looked up: beside the schema, among the grammars that are shipped and, for
terminals such as `common.INT`, among Lark's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path

from nprdsl.grammar import load_limits
from nprdsl.grammar.declarations import (
    ConstructKind,
    Declare,
    Definition,
    Directive,
    Import,
    SourceFile,
    is_terminal_name,
)
from nprdsl.grammar.diagnostics import (
    Diagnostic,
    DiagnosticCode,
    Fix,
    SchemaError,
    Span,
    did_you_mean,
    nearest,
)
from nprdsl.grammar.load_limits import too_large
from nprdsl.grammar.reader import is_file, read, read_text
from nprdsl.grammar.tag_shapes import shown

_OWN_NAME = "define the rule under a name of its own"
_REFUSED_DIRECTIVES = {
    "%ignore": "write the white space where it may stand, as glue: `_NL`",
    "%override": _OWN_NAME,
    "%extend": _OWN_NAME,
}


@dataclass(slots=True)
class Linked:
    """What linking gives: `rules` and `terminals` by unique name, in the order in which they were
    met, and the faults found on the way."""

    rules: dict[str, Definition] = field(default_factory=dict)
    terminals: dict[str, Definition] = field(default_factory=dict)
    declared: dict[str, Span] = field(default_factory=dict)
    sources: list[SourceFile] = field(default_factory=list)
    used: set[str] = field(default_factory=set)  # names of the schema itself that something uses
    lost: set[str] = field(default_factory=set)  # rules named in uses that were refused
    diagnostics: dict[Diagnostic, None] = field(default_factory=dict)

    def report(
        self,
        code: DiagnosticCode,
        span: Span,
        message: str,
        suggestion: str = "",
        related: tuple[tuple[Span, str], ...] = (),
        fix: Fix | None = None,
    ) -> None:
        """A template that is expanded twice reports its faults once."""
        self.add(Diagnostic(code, span, message, suggestion, related, fix))

    def add(self, fault: Diagnostic) -> None:
        """Add a fault. Raises SchemaError where there are enough of them."""
        self.diagnostics[fault] = None
        if len(self.diagnostics) >= load_limits.FAULTS or fault.code is DiagnosticCode.TOO_LARGE:
            self.refuse()

    def refuse(self) -> None:
        """Raises SchemaError if there are faults."""
        if self.diagnostics:
            raise SchemaError(self.diagnostics, self.sources[0].text)

    def unsupported(
        self, span: Span, message: str, suggestion: str, fix: Fix | None = None
    ) -> None:
        """Report what Lark allows and a schema does not."""
        self.report(DiagnosticCode.UNSUPPORTED, span, message, suggestion, fix=fix)


@dataclass(frozen=True, eq=False, slots=True)
class Namespace:
    """The names of one file; `stem` is the file's, empty for the schema itself."""

    source: SourceFile
    stem: str
    definitions: Mapping[str, Definition]
    declared: Mapping[str, Span]
    imports: Mapping[str, Import]

    def known(self, *, terminal: bool) -> list[str]:
        """The names of terminals, or those of rules."""
        names = [*self.definitions, *self.declared, *self.imports]
        return [n for n in names if is_terminal_name(n) == terminal]


@dataclass(frozen=True, slots=True)
class Referent:
    """The definition that a name stands for, and the namespace of its body."""

    namespace: Namespace
    definition: Definition


class Namespaces:
    """All files that are open, by path, None for one that cannot be read; `main` is the schema
    itself. `imports` are texts of files by their paths from there, in place of files on disk."""

    def __init__(
        self, source: SourceFile, result: Linked, imports: Mapping[str, str] | None
    ) -> None:
        self.result = result
        self.imports = imports
        self.by_file: dict[str, Namespace | None] = {}
        self.words = source.words  # of all files
        self.main = self._namespace(source, stem="")

    def _namespace(self, source: SourceFile, *, stem: str) -> Namespace:
        self.result.sources.append(source)
        names: dict[str, Definition | Declare | Import] = {}
        for declaration in source.declarations:
            if isinstance(declaration, Directive):
                if not stem:
                    message = f"`{declaration.keyword}` has no meaning in a schema"
                    way = _REFUSED_DIRECTIVES[declaration.keyword]
                    self.result.unsupported(declaration.span, message, way)
                continue
            name = declaration.alias if isinstance(declaration, Import) else declaration.name
            if name in names:
                self._duplicate(name, declaration.span, names[name].span)
            else:
                names[name] = declaration
        namespace = Namespace(
            source,
            stem,
            {n: d for n, d in names.items() if isinstance(d, Definition)},
            {n: d.span for n, d in names.items() if isinstance(d, Declare)},
            {n: d for n, d in names.items() if isinstance(d, Import)},
        )
        self.by_file[str(Path(source.file))] = namespace
        if not stem:
            self.result.declared.update(namespace.declared)
        return namespace

    def _duplicate(self, name: str, span: Span, first: Span) -> None:
        self.result.report(
            DiagnosticCode.DUPLICATE_NAME,
            span,
            f"`{name}` is already defined on line {first.line}",
            "give one of the two another name",
            ((first, f"`{name}` is first defined here"),),
        )

    def _open(self, namespace: Namespace, imported: Import) -> Namespace | None:
        """The namespace of the file that `imported` names; None after a diagnostic."""
        if not imported.path:
            message = "an import names a file and what it takes from it"
            way = f"write `%import {imported.name} (name, name)`"
            self.result.report(DiagnosticCode.IMPORT_NOT_FOUND, imported.span, message, way)
            return None
        path = Path(*imported.path).with_suffix(".lark")
        name = shown(str(path))
        folders = [Path(namespace.source.file).parent, package_folder("nprdsl.grammars")]
        if not imported.relative:
            folders.append(package_folder("lark.grammars"))
        for file in (folder / path for folder in folders):
            if str(file) in self.by_file:
                return self.by_file[str(file)]
            if self._exists(file):
                self.by_file[str(file)] = None  # until it is read
                self.by_file[str(file)] = self._load(file, imported)
                return self.by_file[str(file)]
        known = {stem for folder in folders for stem in self._stems((folder / path).parent)}
        hint = did_you_mean(path.stem, sorted(known | {"parallel", "common"}))
        self.result.report(
            DiagnosticCode.IMPORT_NOT_FOUND,
            imported.span,
            f"no file `{name}` beside the schema or among the grammars that are shipped",
            hint or f"put `{name}` beside the schema",
        )
        return None

    def _is_given(self, file: Path) -> bool:
        """Whether the file is one of those that came with the schema's text, not one on disk."""
        return self.imports is not None and not file.is_absolute()

    def _exists(self, file: Path) -> bool:
        if self._is_given(file):
            return file.as_posix() in (self.imports or {})
        return is_file(file)

    def _stems(self, folder: Path) -> list[str]:
        """The names of the schemas in a folder."""
        if self._is_given(folder):
            return [p.stem for p in map(Path, self.imports or {}) if p.parent == folder]
        try:
            return [file.stem for file in folder.glob("*.lark")]
        except OSError:
            return []

    def _text(self, file: Path) -> str:
        if self._is_given(file):
            return (self.imports or {})[file.as_posix()]
        return read_text(file)

    def _load(self, file: Path, imported: Import) -> Namespace | None:
        try:
            source = read(self._text(file), str(file))
        except SchemaError as error:
            for fault in error.diagnostics:
                self.result.add(fault)
            return None
        except (OSError, UnicodeDecodeError) as error:
            what = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            message = f"`{file.name}` cannot be read: {what}"
            way = "an imported file is a schema, as UTF-8 text"
            self.result.report(DiagnosticCode.IMPORT_NOT_FOUND, imported.span, message, way)
            return None
        self.words += source.words
        if self.words > load_limits.WORDS:
            what = f"the schema and its imports have {self.words:,} names, strings and signs"
            self.result.add(too_large(imported.span, what, load_limits.WORDS, "import less"))
        return self._namespace(source, stem=file.stem)

    def find(self, namespace: Namespace, name: str) -> Referent | ConstructKind | Span | None:
        """What `name` stands for in `namespace`; a `Span` is the place of a `%declare`."""
        if namespace is self.main:
            self.result.used.add(name)
        if name in namespace.imports:
            return self.imported(namespace, namespace.imports[name])
        return self._own(namespace, name)

    def _own(self, namespace: Namespace, name: str) -> Referent | Span | None:
        if name in namespace.definitions:
            return Referent(namespace, namespace.definitions[name])
        if name in namespace.declared:
            self.result.declared.setdefault(name, namespace.declared[name])
            return namespace.declared[name]
        return None

    def imported(
        self, namespace: Namespace, imported: Import
    ) -> Referent | ConstructKind | Span | None:
        """What an import of `namespace` stands for; None after a diagnostic."""
        first, name, entered = imported, imported.name, set[Import]()
        while imported not in entered:
            entered.add(imported)
            name = imported.name
            if imported.path[-1:] == ("parallel",) and name in set(ConstructKind):
                return ConstructKind(name)
            opened = self._open(namespace, imported)
            if opened is None:
                return None
            if opened is self.main:
                self.result.used.add(name)
            if name not in opened.imports:
                found = self._own(opened, name)
                if found is None:
                    self._missing(opened, imported)
                return found
            namespace, imported = opened, opened.imports[name]
        self.result.report(
            DiagnosticCode.IMPORT_NOT_FOUND,
            first.span,
            f"`{first.name}` is imported in a circle: no file defines it",
            f"define `{name}` in one of the files, or import it from the file that does",
        )
        return None

    def _missing(self, opened: Namespace, imported: Import) -> None:
        terminal = is_terminal_name(imported.name)
        known = opened.known(terminal=terminal)
        code = DiagnosticCode.UNDEFINED_TERMINAL if terminal else DiagnosticCode.UNDEFINED_RULE
        file = Path(opened.source.file).name
        message = f"`{file}` has no `{imported.name}`"
        way = did_you_mean(imported.name, known) or f"`{file}` has " + ", ".join(known)
        fix = None
        if imported.alias == imported.name and (near := nearest(imported.name, known)):
            span = imported.span
            column = span.end_column - len(imported.name)
            fix = Fix(replace(span, line=span.end_line, column=column), near)
        self.result.report(code, imported.span, message, way, fix=fix)


@lru_cache(maxsize=4)
def package_folder(package: str) -> Path:
    parent, _, name = package.rpartition(".")
    return Path(str(resources.files(parent) / name))
