"""The language server, asked by a client over its own standard input and output."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.importorskip("pytest_lsp")

import pytest_lsp
from lsprotocol import types as lsp
from pytest_lsp import ClientServerConfig, LanguageClient

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = """\
%import .parallel (map, process, reduce)
start: map{list} process{item, step} reduce{end}
list: "<l>" item~1..3 "</l>"
item: "<项目>" LABEL ":" TEXT "</项目>"
step: "<s>" LABEL ":" TEXT "</s>"
// The merge.
end: "<e>" TEXT "</e>"
LABEL: /[1-9]/
%declare TEXT
"""


@pytest_lsp.fixture(
    scope="module",
    config=ClientServerConfig(server_command=[sys.executable, "-m", "nprdsl", "lsp"]),
)
async def client(lsp_client: LanguageClient) -> AsyncIterator[None]:
    lsp_client.init_result = await lsp_client.initialize_session(
        lsp.InitializeParams(capabilities=lsp.ClientCapabilities(), root_uri=None)
    )
    yield
    await lsp_client.shutdown_session()


async def opened(client: LanguageClient, file: Path, text: str) -> str:
    """The file in the editor, and its faults known."""
    uri = file.as_uri()
    client.text_document_did_open(
        lsp.DidOpenTextDocumentParams(lsp.TextDocumentItem(uri, "lark", 1, text))
    )
    await client.wait_for_notification(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
    return uri


def at(text: str, word: str, number: int = 0) -> lsp.Position:
    """The middle of an occurrence of a word, in UTF-16 units."""
    index = -1
    for _ in range(number + 1):
        index = text.index(word, index + 1)
    line = text.count("\n", 0, index)
    before = text[text.rfind("\n", 0, index) + 1 : index + len(word) // 2]
    return lsp.Position(line, len(before.encode("utf-16-le")) // 2)


def of(uri: str) -> lsp.TextDocumentIdentifier:
    return lsp.TextDocumentIdentifier(uri)


async def test_a_fault_is_told_and_its_fix_takes_it_away(
    client: LanguageClient, tmp_path: Path
) -> None:
    wrong = SCHEMA.replace("reduce{end}", "reduce{ned}")
    uri = await opened(client, tmp_path / "wrong.lark", wrong)
    faults = client.diagnostics[uri]
    assert {d.code for d in faults} == {"undefined-rule", "unused-rule"}
    fault = next(d for d in faults if d.code == "undefined-rule")
    assert (fault.range.start, fault.range.end) == (lsp.Position(1, 44), lsp.Position(1, 47))
    assert "did you mean `end`?" in fault.message
    context = lsp.CodeActionContext([fault])
    actions = await client.text_document_code_action_async(
        lsp.CodeActionParams(of(uri), fault.range, context)
    )
    action = next(a for a in actions or [] if isinstance(a, lsp.CodeAction) and a.is_preferred)
    assert action.edit is not None and action.edit.changes is not None
    (edit,) = action.edit.changes[uri]
    assert (edit.range, edit.new_text) == (fault.range, "end")
    client.text_document_did_change(
        lsp.DidChangeTextDocumentParams(
            lsp.VersionedTextDocumentIdentifier(2, uri),
            [lsp.TextDocumentContentChangePartial(edit.range, edit.new_text)],
        )
    )
    await client.wait_for_notification(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
    assert not client.diagnostics[uri]


async def test_places_count_as_the_client_counts(client: LanguageClient, tmp_path: Path) -> None:
    wide = SCHEMA.replace("<项目>", "<😀>").replace("</项目>", "</😀>")
    uri = await opened(client, tmp_path / "wide.lark", wide)
    said = await client.text_document_hover_async(lsp.HoverParams(of(uri), at(wide, "LABEL")))
    assert said is not None and said.range is not None
    assert said.range.start.character == len('item: "<😀>" '.encode("utf-16-le")) // 2


@pytest.mark.parametrize("end", ["\u2028", "\u0085", "\x0c", "\x1e"], ids=ascii)
async def test_what_python_takes_for_the_end_of_a_line_is_none(
    client: LanguageClient, tmp_path: Path, end: str
) -> None:
    text = f"// a{end}b\n{SCHEMA}".replace("项目", "😀")
    uri = await opened(client, tmp_path / "schema.lark", text)
    renamed = await client.text_document_rename_async(
        lsp.RenameParams(of(uri), at(text, "LABEL"), "NUMBER")
    )
    assert renamed is not None and renamed.changes is not None
    lines = [line.encode("utf-16-le") for line in text.split("\n")]
    for edit in renamed.changes[uri]:
        at_line, span = lines[edit.range.start.line], edit.range
        word = at_line[2 * span.start.character : 2 * span.end.character]
        assert word.decode("utf-16-le") == "LABEL"


async def test_texts_come_whole(client: LanguageClient) -> None:
    """pygls counts lines as Python does, and so would apply edits at other places."""
    assert client.init_result.capabilities.text_document_sync == lsp.TextDocumentSyncOptions(
        open_close=True, change=lsp.TextDocumentSyncKind.Full, save=True
    )


async def test_other_files_are_left_alone(client: LanguageClient, tmp_path: Path) -> None:
    uri = await opened(client, tmp_path / "plain.lark", "start: a+\n%ignore /x/\n")
    assert not client.diagnostics[uri]


async def test_hover_says_what_a_word_means(client: LanguageClient, tmp_path: Path) -> None:
    uri = await opened(client, tmp_path / "hover.lark", SCHEMA)

    async def said(word: str, number: int = 0) -> str:
        position = at(SCHEMA, word, number)
        found = await client.text_document_hover_async(lsp.HoverParams(of(uri), position))
        assert found is not None and isinstance(found.contents, lsp.MarkupContent)
        return found.contents.value

    assert "isolated `branch` for every `item`" in await said("process", 1)
    assert 'end: "<e>" TEXT "</e>"' in await said("end")
    assert "The merge." in await said("end")
    assert "free text up to the next tag" in await said("TEXT")
    assert "a value that this expression matches" in await said("LABEL")
    assert await said('"<l>"') == (
        "the tag `<l>`: no value holds it, and the parser finds it wherever it stands"
    )
    assert await said('":"') == "`:`, written and read as it stands"


async def test_definitions_and_references(client: LanguageClient, tmp_path: Path) -> None:
    uri = await opened(client, tmp_path / "names.lark", SCHEMA)
    place = await client.text_document_definition_async(
        lsp.DefinitionParams(of(uri), at(SCHEMA, "item"))
    )
    assert isinstance(place, lsp.Location)
    assert (place.uri, place.range.start) == (uri, lsp.Position(3, 0))
    construct = await client.text_document_definition_async(
        lsp.DefinitionParams(of(uri), at(SCHEMA, "map", 1))
    )
    assert isinstance(construct, lsp.Location) and construct.uri.endswith("parallel.lark")
    found = await client.text_document_references_async(
        lsp.ReferenceParams(lsp.ReferenceContext(False), of(uri), at(SCHEMA, "item"))
    )
    assert [(one.range.start.line, one.range.start.character) for one in found or []] == [
        (1, 25), (2, 12),
    ]  # fmt: skip


async def test_rename_changes_every_place_or_says_why_not(
    client: LanguageClient, tmp_path: Path
) -> None:
    uri = await opened(client, tmp_path / "rename.lark", SCHEMA)

    async def renamed(word: str, new: str) -> lsp.WorkspaceEdit | None:
        position = at(SCHEMA, word)
        return await client.text_document_rename_async(lsp.RenameParams(of(uri), position, new))

    edit = await renamed("LABEL", "NUMBER")
    assert edit is not None and edit.changes is not None
    assert [(e.range.start.line, e.new_text) for e in edit.changes[uri]] == [
        (3, "NUMBER"), (4, "NUMBER"), (7, "NUMBER"),
    ]  # fmt: skip
    for word, new, why in [
        ("LABEL", "number", "`number` is no name of a terminal"),
        ("item", "step", "`step` is already defined"),
        ("start", "begin", "begins at the rule `start`"),
        ("map", "fork", "is defined in `parallel`"),
        ("LABEL", "TAG_X", "makes tags of strings"),
    ]:
        assert await renamed(word, new) is None
        assert why in client.messages[-1].message


async def test_formatting(client: LanguageClient, tmp_path: Path) -> None:
    uri = await opened(client, tmp_path / "form.lark", SCHEMA)
    options = lsp.FormattingOptions(tab_size=4, insert_spaces=True)
    edits = await client.text_document_formatting_async(
        lsp.DocumentFormattingParams(of(uri), options)
    )
    assert edits is not None
    assert 'list:  "<l>" item~1..3 "</l>"\n' in edits[0].new_text


async def test_words_that_may_be_written(client: LanguageClient, tmp_path: Path) -> None:
    text = SCHEMA + 'more: "<m>" it\n%\n'
    uri = await opened(client, tmp_path / "words.lark", text)

    async def words(position: lsp.Position) -> set[str]:
        found = await client.text_document_completion_async(lsp.CompletionParams(of(uri), position))
        assert isinstance(found, list)
        return {item.label for item in found}

    assert {"item", "LABEL", "TEXT", "map{list}"} <= await words(lsp.Position(9, 14))
    assert "%declare TEXT" in await words(lsp.Position(10, 1))
    assert await words(lsp.Position(3, 8)) == set()  # in a string
    assert await words(lsp.Position(5, 6)) == set()  # in a comment
    assert await words(lsp.Position(0, 20)) == {"map", "process", "spawn", "reduce", "reread"}


async def test_hostile_texts_end_in_faults(client: LanguageClient, tmp_path: Path) -> None:
    start = "%import .parallel (map)\n"
    for number, text in enumerate(
        ("start: " + "(" * 9_000, "start: x\x00\n", 'start: "1"~1000000000\n', "\ud800\n")
    ):
        uri = await opened(client, tmp_path / f"hostile{number}.lark", start + text[:90_000])
        assert client.diagnostics[uri]
