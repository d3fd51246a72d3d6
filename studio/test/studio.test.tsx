// The studio's own parts: messages of a run, branches from events, places in the editor's text.
import { Text } from "@codemirror/state";
import { describe, expect, it } from "vitest";
import { differences, figures } from "../src/compare";
import { offsetOf, placeOf, rangeOf, told } from "../src/editor";
import { Live } from "../src/live";
import { Pieces } from "../src/pieces";
import { messageParser, type Message, type RunEvent } from "../src/server";
import { lanes, trace } from "./views";

const event = (over: Partial<RunEvent>): RunEvent => ({
  kind: "token", branch: 0, parent: 0, children: [], labels: [], tokens: [1], text: "", forced: false, rule: "step", reason: "", ...over,
});

describe("messages", () => {
  it("are the same wherever the stream is cut", () => {
    const stream = ['event: event\ndata: {"text": "a\\n\\nb"}\n\n', 'event: refused\ndata: {"message": "no"}\n\n'].join("");
    for (let size = 1; size < stream.length; size++) {
      const heard: Message[] = [];
      const parse = messageParser((message) => heard.push(message));
      for (let at = 0; at < stream.length; at += size) parse(stream.slice(at, at + size));
      expect(heard.map(({ kind }) => kind)).toEqual(["event", "refused"]);
      expect((heard[0].data as RunEvent).text).toBe("a\n\nb");
    }
  });
});

describe("two traces", () => {
  const [one, other] = [new Pieces(trace()), new Pieces(trace({ text: "<g>abc<s>dxf<s>ghi<t>jkl" }))];

  it("differ in the pieces between what both begin and end with", () => {
    expect(differences(one, one).map((flags) => [...flags])).toEqual([Array(8).fill(0), Array(8).fill(0)]);
    expect(differences(one, other).map((flags) => [...flags])).toEqual([[0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0]]);
  });

  it("differ in all of a branch that the other lacks", () => {
    const fewer = lanes();
    fewer.segments = fewer.segments.filter((_, index) => index !== 2);
    const lacking = new Pieces(trace({ lanes: fewer }));
    expect([...differences(one, lacking)[0]]).toEqual([0, 0, 0, 0, 1, 1, 0, 0]);
  });

  it("have figures that both or one has", () => {
    const outcome = { answer: "7", finish: "completed", error: "", figures: { forwards: 12 } };
    const found = new Map(figures(one.view, { ...other.view, outcome }).map(([name, ...both]) => [name, both]));
    expect(found.get("answer")).toEqual(["–", "7"]);
    expect(found.get("calls of the model")).toEqual(["–", "12"]);
    expect(found.has("seconds")).toBe(false);
  });
});

describe("branches", () => {
  it("grow side by side and wait for the join", () => {
    const live = new Live();
    live.follow(event({ text: "list" }));
    live.follow(event({ kind: "fork", children: [1, 2], labels: ["1", "2"] }));
    expect(live.live).toBe(2);
    live.follow(event({ branch: 2, text: "b", tokens: [5, 6] }));
    live.follow(event({ branch: 1, text: "a" }));
    live.follow(event({ branch: 1, text: "a" }));
    live.follow(event({ kind: "branch_end", branch: 1, reason: "completed" }));
    expect(live.live).toBe(1);
    live.follow(event({ kind: "branch_end", branch: 2, reason: "budget" }));
    live.follow(event({ kind: "join" }));
    live.follow(event({ text: "end" }));
    expect([live.live, live.tokens]).toEqual([1, 6]);
    const fork = live.root.items[1];
    if (!("children" in fork)) throw new Error("no fork");
    expect(fork.children.map(({ title, tokens, ended, tint, items }) => [title, tokens, ended, tint, items])).toEqual([
      ["step 1", 2, "completed", 0, [{ text: "aa", forced: false }]],
      ["step 2", 2, "budget", 1, [{ text: "b", forced: false }]],
    ]);
    live.follow(event({ kind: "end", reason: "completed" }));
    expect(live.live).toBe(0);
  });
});

describe("places", () => {
  const text = Text.of(["a: 😀 b", "", "c"]);

  it("count characters from 1, in both directions", () => {
    for (let offset = 0; offset <= text.length; offset++) {
      if (offset === 4) continue; // inside of the emoji
      const { line, column } = placeOf(text, offset);
      expect(offsetOf(text, line, column)).toBe(offset);
    }
    expect(placeOf(text, 6)).toEqual({ line: 1, column: 6 });
  });

  it("stay inside the text", () => {
    expect(rangeOf(text, [1, 6, 1, 7])).toEqual({ from: 6, to: 7 });
    expect(rangeOf(text, [9, 1, 9, 2])).toEqual({ from: 9, to: 10 });
  });
});

it("shows what is told of a name as text", () => {
  const dom = told('```lark\nstep: "<script>"\n```\n\nfree `text`');
  expect([...dom.children].map((child) => [child.tagName, child.textContent])).toEqual([["PRE", 'step: "<script>"'], ["P", "free text"]]);
});
