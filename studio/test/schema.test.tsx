// The parts of the page of a schema.
import { render } from "preact";
import { act } from "preact/test-utils";
import { expect, it } from "vitest";
import type { BoxView, SchemaView } from "../src/model";
import { SchemaPanel, staged } from "../src/schema";

function box(kind: BoxView["kind"], name: string, children: BoxView[] = []): BoxView {
  return { kind, name, note: "", words: [], children };
}

const WORDS: BoxView = { kind: "line", name: "", note: "", words: [{ kind: "tag", text: "<b>" }], children: [] };
const VIEW: SchemaView = {
  kind: "schema", version: 1, title: "mine", name: "mine",
  root: box("rule", "start", [box("map", "map"), box("fork", "fork", [WORDS]), box("join", "reduce"), box("rule", "answer")]),
  tags: [{ text: "<b>", ids: [256], special: true }, { text: "</b>", ids: [60, 47, 98, 62], special: false }],
  terminals: [{ name: "TEXT", kind: "text", says: "free text" }],
  forks: [{ rule: "block", branch: "step", join: "reduce", says: "one step for each plan" }],
  exports: [{ target: "xgrammar", lost: ["`LABEL` is lost"], refused: "" }, { target: "outlines", lost: [], refused: "too deep" }],
  vocabulary: "bytes", vocabulary_size: 265, mode: "mixed", minimum: 23,
};

it("puts the stages of each block together", () => {
  const kinds = (["map", "fork", "join", "map", "fork", "join", "rule"] as const).map((kind) => box(kind, kind));
  expect(staged(kinds).map((part) => (Array.isArray(part) ? part.length : part.kind))).toEqual([3, 3, "rule"]);
});

it("shows graph, tags with their tokens, and losses", () => {
  const root = document.createElement("div");
  act(() => render(<SchemaPanel view={VIEW} />, root));
  expect([...root.querySelectorAll(".stage")].map((stage) => stage.className)).toEqual(["stage map", "stage fork", "stage join"]);
  expect([...root.querySelectorAll(".tags li")].map((line) => line.textContent)).toEqual(["<b>256", "</b>60 47 98 62"]);
  expect(root.querySelector("details li")?.innerHTML).toBe("<code>LABEL</code> is lost");
  expect(root.textContent).toContain("cannot state it");
});
