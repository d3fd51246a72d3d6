/** The TextMate grammar, tried with the engine that VS Code has. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";

const require = createRequire(import.meta.url);
const oniguruma = require("vscode-oniguruma");
const textmate = require("vscode-textmate");

const here = new URL("..", import.meta.url);
const wasm = readFileSync(require.resolve("vscode-oniguruma/release/onig.wasm"));
await oniguruma.loadWASM(wasm.buffer.slice(wasm.byteOffset, wasm.byteOffset + wasm.byteLength));
const registry = new textmate.Registry({
  onigLib: Promise.resolve({
    createOnigScanner: (patterns) => new oniguruma.OnigScanner(patterns),
    createOnigString: (text) => new oniguruma.OnigString(text),
  }),
  loadGrammar: async () =>
    textmate.parseRawGrammar(
      readFileSync(new URL("syntaxes/lark.tmLanguage.json", here), "utf8"),
      "lark.json",
    ),
});
const grammar = await registry.loadGrammar("source.lark");

/** The innermost scope of each word of a line. */
function scopes(line) {
  const { tokens } = grammar.tokenizeLine(line, textmate.INITIAL);
  return new Map(
    tokens.map((token) => [
      line.slice(token.startIndex, token.endIndex).trim(),
      token.scopes[token.scopes.length - 1],
    ]),
  );
}

test("a rule: its name, constructs, tags, terminals, comment", () => {
  const found = scopes('plan: map{list} "<plan>" LABEL ":" TEXT~1..3 // "<no>"');
  assert.equal(found.get("plan"), "entity.name.function.lark");
  assert.equal(found.get("map"), "keyword.control.parallel.lark");
  assert.equal(found.get("list"), "variable.other.rule.lark");
  assert.equal(found.get('"<plan>"'), "entity.name.tag.lark");
  assert.equal(found.get("LABEL"), "constant.other.terminal.lark");
  assert.equal(found.get("~1..3"), "keyword.operator.repetition.lark");
  assert.equal(found.get('// "<no>"'), "comment.line.double-slash.lark");
});

test("a terminal: expressions and strings that hold slashes and quotes", () => {
  const found = scopes('VALUE: /a"\\/\\d+/ | "//x" | B');
  assert.equal(found.get("VALUE"), "entity.name.function.lark");
  assert.equal(found.get('a"'), "string.regexp.lark");
  assert.equal(found.get("//x"), "string.quoted.double.lark");
  assert.equal(found.get("B"), "constant.other.terminal.lark");
});

test("directives", () => {
  const found = scopes("%import .parallel (map, process, reduce)");
  assert.equal(found.get("%import"), "keyword.control.directive.lark");
  assert.equal(found.get("process"), "keyword.control.parallel.lark");
});

test("every line of the schemas that ship is read to its end", () => {
  for (const name of ["npr", "multiverse", "threadweaver", "parallel"]) {
    const text = readFileSync(new URL(`../../grammars/${name}.lark`, here), "utf8");
    let stack = textmate.INITIAL;
    for (const line of text.split("\n")) {
      const { tokens, ruleStack } = grammar.tokenizeLine(line, stack);
      assert.ok(tokens.every((token) => !token.scopes.includes("invalid")), line);
      assert.equal(ruleStack.depth, 1, line);
      stack = ruleStack;
    }
  }
});
