/** The extension's protocol library with a real `nprdsl lsp`: from the handshake to the end; skipped
 * where the checkout has no environment. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const protocol = require("vscode-languageserver-protocol/node");

const nprdsl = fileURLToPath(new URL("../../../.venv/bin/nprdsl", import.meta.url));
const uri = "file:///somewhere/mine.lark";
const text = [
  "%import .parallel (map, process, reduce)",
  "%declare TEXT",
  "// 🙂 what stands before a name counts in UTF-16",
  'start: "<😀>" list  "</😀>"',
  "list: map{items} process{item, step} reduce{end}",
  'items: "<items>" itm~1..4 "</items>"',
  'item: "<item>" /[1-9]/ ":" TEXT "</item>"',
  'step: "<step>" TEXT "</step>"',
  'end: "<end>" TEXT "</end>"',
  "",
].join("\n");

test("a real server", { skip: !existsSync(nprdsl) && "there is no .venv" }, async () => {
  const server = spawn(nprdsl, ["lsp"], { stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise((resolve) => server.on("exit", resolve));
  const connection = protocol.createProtocolConnection(
    new protocol.StreamMessageReader(server.stdout),
    new protocol.StreamMessageWriter(server.stdin),
  );
  const told = [];
  let tell;
  connection.onNotification("textDocument/publishDiagnostics", (params) => (tell ? tell(params) : told.push(params)));
  const faults = () => {
    if (told.length) return Promise.resolve(told.shift().diagnostics);
    return new Promise((resolve) => (tell = (params) => ((tell = undefined), resolve(params.diagnostics))));
  };
  connection.listen();
  try {
    const { capabilities } = await connection.sendRequest("initialize", {
      processId: process.pid,
      rootUri: null,
      capabilities: { textDocument: { rename: { prepareSupport: true }, codeAction: { codeActionLiteralSupport: { codeActionKind: { valueSet: ["quickfix"] } } } } },
    });
    for (const able of ["hoverProvider", "completionProvider", "definitionProvider", "renameProvider", "documentFormattingProvider", "codeActionProvider"]) {
      assert.ok(capabilities[able], able);
    }
    await connection.sendNotification("initialized", {});
    const document = { uri, languageId: "lark", version: 1 };
    await connection.sendNotification("textDocument/didOpen", { textDocument: { ...document, text } });
    const found = await faults();
    const fault = found.find(({ code }) => code === "undefined-rule");
    assert.deepEqual(fault.range, { start: { line: 5, character: 17 }, end: { line: 5, character: 20 } });

    const [action] = await connection.sendRequest("textDocument/codeAction", { textDocument: { uri }, range: fault.range, context: { diagnostics: [fault] } });
    assert.equal(action.kind, "quickfix");
    const [edit] = action.edit.changes[uri];
    assert.deepEqual([edit.range, edit.newText], [fault.range, "item"]);
    assert.equal(capabilities.textDocumentSync.change, protocol.TextDocumentSyncKind.Full);
    const lines = text.split("\n");
    const { line, character } = edit.range.start;
    lines[line] = lines[line].slice(0, character) + edit.newText + lines[line].slice(edit.range.end.character);
    await connection.sendNotification("textDocument/didChange", { textDocument: { uri, version: 2 }, contentChanges: [{ text: lines.join("\n") }] });
    assert.deepEqual(await faults(), []);

    const name = { textDocument: { uri }, position: { line: 3, character: 17 } };
    assert.match((await connection.sendRequest("textDocument/hover", name)).contents.value, /list: map/);
    const renamed = await connection.sendRequest("textDocument/rename", { ...name, newName: "plan" });
    assert.deepEqual(
      renamed.changes[uri].map(({ range }) => [range.start.line, range.start.character, range.end.character]),
      [[3, 14, 18], [4, 0, 4]],
    );
    const [formatted] = await connection.sendRequest("textDocument/formatting", { textDocument: { uri }, options: { tabSize: 2, insertSpaces: true } });
    assert.match(formatted.newText, /^start: "<😀>" list "<\/😀>"$/m);
    await connection.sendRequest("shutdown");
    await connection.sendNotification("exit");
    assert.equal(await ended, 0);
  } finally {
    connection.dispose();
    server.kill();
  }
});
