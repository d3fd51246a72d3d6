"""`nprdsl lsp`: a language server for `.lark` files that import `parallel`.

Editors start it and speak the Language Server Protocol with it over stdin and stdout. What it
answers is worked out in `nprdsl.grammar`; here it is put into the protocol's words. Other `.lark`
files are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer
from pygls.uris import from_fs_path, to_fs_path
from pygls.workspace import ServerTextPosition, ServerTextRange, TextDocument

from nprdsl.grammar.analysis import SchemaAnalysis, analyse, is_schema
from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, Span
from nprdsl.grammar.formatting import formatted
from nprdsl.grammar.names import NamePlace, RenameError, SchemaNames
from nprdsl.grammar.resolve import Kept
from nprdsl.grammar.terminal_types import TerminalType

_START: Final = lsp.Range(lsp.Position(0, 0), lsp.Position(0, 0))
_KINDS: Final = {
    "construct": lsp.CompletionItemKind.Keyword,
    "directive": lsp.CompletionItemKind.Keyword,
    "template": lsp.CompletionItemKind.Function,
    "rule": lsp.CompletionItemKind.Class,
}


@dataclass(slots=True)
class _Opened:
    """One file that is edited, what is known of its text, and what is kept for the next one."""

    document: TextDocument
    analysis: SchemaAnalysis
    kept: Kept


@dataclass(slots=True)
class SchemaFiles:
    """The files that an editor has open; `types` are those of declared terminals."""

    types: Mapping[str, TerminalType]
    opened: dict[str, _Opened] = field(default_factory=dict)

    def changed(self, document: TextDocument) -> list[lsp.Diagnostic]:
        """The faults of a file as it is now."""
        if not is_schema(document.source):
            self.opened.pop(document.uri, None)
            return []
        file = to_fs_path(document.uri) or document.uri
        before = self.opened.pop(document.uri, None)
        kept = Kept() if before is None else before.kept
        analysis = analyse(document.source, file, self.types, kept=kept)
        self.opened[document.uri] = _Opened(document, analysis, kept)
        return [_diagnostic(document, fault) for fault in analysis.faults]

    def place(self, uri: str, position: lsp.Position) -> tuple[SchemaNames, NamePlace] | None:
        """The name at a position."""
        opened = self.opened.get(uri)
        if opened is None:
            return None
        names = opened.analysis.names
        place = names.at(*_from_client(opened.document, position))
        return None if place is None else (names, place)


def server(types: Mapping[str, TerminalType], version: str) -> LanguageServer:
    """A language server with all its answers."""
    # whole texts: pygls applies edits of parts at the wrong lines where a text has a form feed
    made = LanguageServer("nprdsl", version, text_document_sync_kind=lsp.TextDocumentSyncKind.Full)
    files = SchemaFiles(types)
    _follow_texts(made, files)
    _answer_about_names(made, files)
    _answer_about_edits(made, files)
    return made


def _follow_texts(made: LanguageServer, files: SchemaFiles) -> None:
    def look(uri: str) -> None:
        document = made.workspace.get_text_document(uri)
        found = files.changed(document)
        made.text_document_publish_diagnostics(
            lsp.PublishDiagnosticsParams(uri, found, document.version)
        )

    @made.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: lsp.DidOpenTextDocumentParams) -> None:
        look(params.text_document.uri)

    @made.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: lsp.DidChangeTextDocumentParams) -> None:
        look(params.text_document.uri)

    @made.feature(lsp.TEXT_DOCUMENT_DID_SAVE)
    def saved(_params: lsp.DidSaveTextDocumentParams) -> None:
        for uri in list(files.opened):  # one may import another
            look(uri)

    @made.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: lsp.DidCloseTextDocumentParams) -> None:
        files.opened.pop(params.text_document.uri, None)


def _answer_about_names(made: LanguageServer, files: SchemaFiles) -> None:
    @made.feature(lsp.TEXT_DOCUMENT_HOVER)
    def hover(params: lsp.HoverParams) -> lsp.Hover | None:
        opened = files.opened.get(params.text_document.uri)
        if opened is None:
            return None
        said = opened.analysis.hover(*_from_client(opened.document, params.position))
        if said is None:
            return None
        content = lsp.MarkupContent(lsp.MarkupKind.Markdown, said[1])
        return lsp.Hover(content, _to_client(opened.document, said[0]))

    @made.feature(
        lsp.TEXT_DOCUMENT_COMPLETION, lsp.CompletionOptions(trigger_characters=["%", "("])
    )
    def completion(params: lsp.CompletionParams) -> list[lsp.CompletionItem]:
        opened = files.opened.get(params.text_document.uri)
        if opened is None:
            return []
        at = _from_client(opened.document, params.position)
        return [
            lsp.CompletionItem(
                word.text,
                kind=_KINDS.get(word.kind, lsp.CompletionItemKind.Constant),
                detail=word.says or word.kind,
            )
            for word in opened.analysis.completions(*at)
        ]

    @made.feature(lsp.TEXT_DOCUMENT_DEFINITION)
    def definition(params: lsp.DefinitionParams) -> lsp.Location | None:
        at = files.place(params.text_document.uri, params.position)
        found = None if at is None else at[0].definition(at[1])
        if found is None:
            return None
        uri = from_fs_path(found.span.file) or params.text_document.uri
        document = made.workspace.get_text_document(uri)
        return lsp.Location(uri, _to_client(document, found.span))

    @made.feature(lsp.TEXT_DOCUMENT_REFERENCES)
    def references(params: lsp.ReferenceParams) -> list[lsp.Location]:
        uri = params.text_document.uri
        at = files.place(uri, params.position)
        if at is None:
            return []
        document, defined = files.opened[uri].document, params.context.include_declaration
        places = [one for one in at[0].everywhere(at[1]) if defined or not one.defines]
        return [lsp.Location(uri, _to_client(document, one.span)) for one in places]


def _answer_about_edits(made: LanguageServer, files: SchemaFiles) -> None:
    @made.feature(lsp.TEXT_DOCUMENT_PREPARE_RENAME)
    def prepare(params: lsp.PrepareRenameParams) -> lsp.Range | None:
        at = files.place(params.text_document.uri, params.position)
        if at is None:
            return None
        document = files.opened[params.text_document.uri].document
        return _to_client(document, at[1].span)

    @made.feature(lsp.TEXT_DOCUMENT_RENAME, lsp.RenameOptions(prepare_provider=True))
    def rename(params: lsp.RenameParams) -> lsp.WorkspaceEdit | None:
        uri = params.text_document.uri
        at = files.place(uri, params.position)
        if at is None:
            return None
        try:
            spans = at[0].renamed(at[1], params.new_name)
        except RenameError as error:
            made.window_show_message(lsp.ShowMessageParams(lsp.MessageType.Error, str(error)))
            return None
        document = files.opened[uri].document
        edits = [lsp.TextEdit(_to_client(document, span), params.new_name) for span in spans]
        return lsp.WorkspaceEdit({uri: edits})

    @made.feature(lsp.TEXT_DOCUMENT_FORMATTING)
    def formatting(params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit]:
        opened = files.opened.get(params.text_document.uri)
        if opened is None:
            return []
        text = opened.document.source
        new, lines = formatted(text), text.split("\n")
        whole = lsp.Range(lsp.Position(0, 0), lsp.Position(len(lines), 0))
        return [] if new == text else [lsp.TextEdit(whole, new)]

    @made.feature(
        lsp.TEXT_DOCUMENT_CODE_ACTION, lsp.CodeActionOptions([lsp.CodeActionKind.QuickFix])
    )
    def actions(params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
        opened = files.opened.get(params.text_document.uri)
        if opened is None:
            return []
        touched = [
            fault
            for fault in opened.analysis.faults
            if fault.fix is not None
            and params.range.start.line <= fault.span.end_line - 1
            and fault.span.line - 1 <= params.range.end.line
        ]
        return [_action(opened.document, fault) for fault in touched]


def _action(document: TextDocument, fault: Diagnostic) -> lsp.CodeAction:
    assert fault.fix is not None
    edit = lsp.TextEdit(_to_client(document, fault.fix.span), fault.fix.text)
    return lsp.CodeAction(
        fault.suggestion,
        lsp.CodeActionKind.QuickFix,
        [_diagnostic(document, fault)],
        is_preferred=True,
        edit=lsp.WorkspaceEdit({document.uri: [edit]}),
    )


def _diagnostic(document: TextDocument, fault: Diagnostic) -> lsp.Diagnostic:
    untyped = fault.code is DiagnosticCode.UNTYPED_TERMINAL  # the program that loads it types it
    here = _is_here(document, fault.span)
    return lsp.Diagnostic(
        _to_client(document, fault.span) if here else _START,
        fault.message + (f"\n{fault.suggestion}" if fault.suggestion else ""),
        lsp.DiagnosticSeverity.Information if untyped else lsp.DiagnosticSeverity.Error,
        fault.code.value,
        source="nprdsl",
        related_information=[
            lsp.DiagnosticRelatedInformation(
                lsp.Location(document.uri, _to_client(document, span)), note
            )
            for span, note in fault.related
            if _is_here(document, span)
        ],
    )


def _is_here(document: TextDocument, span: Span) -> bool:
    file = to_fs_path(document.uri)
    return span.file == (file or document.uri) or Path(span.file) == Path(file or "")


def _from_client(document: TextDocument, position: lsp.Position) -> tuple[int, int]:
    """A line and a column, which count characters from 1."""
    here = document.position_codec.position_from_client_units(_lines(document), position)
    return here.line + 1, here.character + 1


def _to_client(document: TextDocument, span: Span) -> lsp.Range:
    start = ServerTextPosition(span.line - 1, span.column - 1)
    end = ServerTextPosition(span.end_line - 1, span.end_column - 1)
    return document.position_codec.range_to_client_units(
        _lines(document), ServerTextRange(start, end)
    )


def _lines(document: TextDocument) -> list[str]:
    """As diagnostics and clients count them; Python ends lines at form feeds too."""
    return document.source.split("\n")
