// The parts of the page of a trace.
import { render } from "preact";
import { act } from "preact/test-utils";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { Lanes, neighbour } from "../src/lanes";
import { Pieces, lastAtMost, seenBy } from "../src/pieces";
import type { ReportView } from "../src/model";
import { ReportPanel, pathOf } from "../src/report";
import { rowsOf } from "../src/rows";
import { stepped } from "../src/text-list";
import { TracePanel } from "../src/trace";
import { lanes, trace } from "./views";

let root: HTMLElement;
beforeEach(() => {
  document.body.innerHTML = "";
  root = document.createElement("div");
  document.body.append(root);
});
const show = (vnode: Parameters<typeof render>[0]) => act(() => render(vnode, root));
const all = (selector: string) => [...root.querySelectorAll<HTMLElement>(selector)];

describe("pieces", () => {
  it("finds the last value that is small enough, as a walk over all does", () => {
    const values = [0, 2, 2, 5, 9];
    for (let value = -1; value < 12; value++) {
      expect(lastAtMost(values, value)).toBe(values.filter((one) => one <= value).length - 1);
    }
  });

  it("knows text, rule, segment and position of each", () => {
    const pieces = new Pieces(trace());
    expect([0, 3, 7].map((piece) => pieces.text(piece))).toEqual(["<g>", "def", "jkl"]);
    expect([1, 3, 5, 7].map((piece) => pieces.rule(piece))).toEqual(["guideline", "step", "step", "takeaway"]);
    expect([1, 3, 5, 7].map((piece) => pieces.position(piece))).toEqual([1, 3, 3, 5]);
    expect([0, 2, 4, 6].map((piece) => pieces.segmentOf(piece).caption)).toEqual(["", "step 1", "step 2", ""]);
  });

  it("counts units where a piece has several", () => {
    const view = trace({ sizes: [3, 3, 3, 3, 3, 3, 3, 3] });
    view.lanes.segments.forEach((segment) => {
      segment.start *= 3;
      segment.end *= 3;
      segment.position *= 3;
    });
    const pieces = new Pieces(view);
    expect(pieces.position(3)).toBe(9);
    expect([0, 5, 10, 23].map((entry) => pieces.atEntry(entry))).toEqual([0, 1, 3, 7]);
    expect(pieces.entry(3)).toBe(9);
  });

  it("lights what a segment sees", () => {
    const { segments } = lanes();
    expect([...seenBy(segments[2], 4)]).toEqual([1, 0, 0, 0]);
    expect([...seenBy(segments[3], 4)]).toEqual([1, 1, 1, 0]);
  });
});

describe("rows", () => {
  it("hold every character once, in order, at every width", () => {
    const text = "a long word\nand 漢字 emoji 🎉 then\n\nsome more of it";
    const view = trace({ text, lengths: text.split(/(?<=\s)/).map((word) => word.length), rule_runs: [], tags: [], forced: [] });
    view.lanes.segments = [{ ...view.lanes.segments[0], pieces: [0, view.lengths.length] }];
    const pieces = new Pieces(view);
    for (let columns = 8; columns < 60; columns += 3) {
      const rows = rowsOf(pieces, columns);
      const said = rows.flatMap((row) => (row.kind === "text" ? row.parts.map((p) => pieces.text(p.piece).slice(p.from, p.to)) : []));
      expect(said.join("")).toBe(text);
    }
  });

  it("are stepped through by keys", () => {
    const pieces = new Pieces(trace());
    const rows = rowsOf(pieces, 80);
    const rowOf = new Int32Array(8);
    rows.forEach((row, index) => row.kind === "text" && row.parts.forEach((part) => (rowOf[part.piece] = index)));
    expect(stepped(rows, rowOf, 8, 3, "ArrowDown")).toBe(5);
    expect(stepped(rows, rowOf, 8, 3, "ArrowUp")).toBe(1);
    expect(stepped(rows, rowOf, 8, 7, "ArrowRight")).toBe(null);
    expect(stepped(rows, rowOf, 8, 7, "Home")).toBe(0);
    expect(stepped(rows, rowOf, 8, 7, "x")).toBe(null);
  });
});

describe("lanes", () => {
  it("have a button that says what it is for each segment, and a bar for each fork and join", () => {
    show(<Lanes lanes={lanes()} text={() => "text"} selected={null} seen={null} onSelect={() => {}} />);
    expect(all("button").map((bar) => bar.title)).toEqual([
      "beginning: 2 tokens, from position 0",
      "step 1: 2 tokens, from position 2",
      "step 2: 2 tokens, from position 2",
      "behind the join: 2 tokens, from position 4",
    ]);
    expect(all(".junction").length).toBe(2);
    expect(all("button").filter((bar) => bar.tabIndex === 0).length).toBe(1);
  });

  it("are walked with the arrow keys", () => {
    const view = lanes();
    expect(neighbour(view, 0, "ArrowRight")).toBe(1);
    expect(neighbour(view, 1, "ArrowDown")).toBe(2);
    expect(neighbour(view, 2, "ArrowUp")).toBe(1);
    expect(neighbour(view, 3, "ArrowLeft")).toBe(1);
    expect(neighbour(view, 0, "ArrowUp")).toBe(null);
  });

  it("tell which segment is chosen", () => {
    const chosen = vi.fn();
    show(<Lanes lanes={lanes()} text={() => ""} selected={1} seen={null} onSelect={chosen} />);
    all("button")[2].click();
    expect(chosen).toHaveBeenCalledWith(2);
    expect(all("[aria-pressed=true]").length).toBe(1);
  });
});

describe("the page of a trace", () => {
  it("shows what is known of the piece that is pointed at, and dims what it does not see", () => {
    show(<TracePanel view={trace()} />);
    act(() => void all("[data-piece='5']")[0].dispatchEvent(new MouseEvent("mouseover", { bubbles: true })));
    const told = Object.fromEntries(all("dt").map((name) => [name.textContent, name.nextElementSibling?.textContent]));
    expect(told).toEqual({ position: "3", rule: "step", branch: "step 2", sees: "4 of 8 entries", probability: "77.9 %" });
    expect(all(".bar.unseen").map((bar) => bar.dataset.segment)).toEqual(["1", "3"]);
  });

  it("shows what else was likely there", () => {
    show(<TracePanel view={trace()} />);
    const likeliest = (piece: number) => {
      act(() => void all(`[data-piece='${piece}']`)[0].dispatchEvent(new MouseEvent("mouseover", { bubbles: true })));
      return all(".likeliest li").map((one) => one.textContent);
    };
    const kept = trace().alternatives.findIndex((some) => some.length > 0) + trace().prompt_pieces;
    expect(likeliest(kept)).toEqual(["␣no 60.7 %", "↵ 5.0 %"]);
    expect(likeliest(kept + 1)).toEqual([]);
  });

  it("shows a hostile text as text", () => {
    const hostile = "<script>alert(1)</script>";
    show(<TracePanel view={trace({ text: "<g>" + hostile + "x".repeat(20), lengths: [3, hostile.length, 4, 4, 4, 4, 4, 0] })} />);
    expect(all("script").length).toBe(0);
    expect(all("[data-piece='1']").map((piece) => piece.textContent).join("")).toBe(hostile);
  });

  it("names faults, with code and place", () => {
    const fault = { code: "empty-text", message: "`TEXT` is blank", suggestion: "", rule: "step", line: 3, column: 1, piece: 5 };
    show(<TracePanel view={trace({ violations: [fault] })} />);
    expect(all(".faults button")[0].textContent).toContain("empty-text TEXT is blank line 3, column 1, in step");
    expect(all(".piece.fault").map((piece) => piece.dataset.piece)).toEqual(["5"]);
  });
});

describe("a report", () => {
  const table = { title: "Figures", columns: ["", "sums"], rows: [["legal", "<b>"]] };
  const points: [number, number][] = [[1, 2], [2, 4], [4, 2]];
  const view: ReportView = {
    kind: "report", version: 1, title: "r", tables: [table], curves: [{ title: "loss", points }],
    samples: [{ note: "right", best: true, trace: trace() }, { note: "wrong", best: false, trace: trace() }],
  };

  it("has tables, curves, and traces that are drawn when they are opened", async () => {
    await show(<ReportPanel view={view} />);
    expect(all("td").map((cell) => cell.textContent)).toEqual(["", "<b>"]);
    expect(all("summary").map((one) => one.textContent)).toEqual(["a trace right", "a trace wrong"]);
    expect(all(".trace").length).toBe(0);
    await act(() => {
      const first = all("details")[0] as HTMLDetailsElement;
      first.open = true;
      first.dispatchEvent(new Event("toggle"));
    });
    expect(all(".trace").length).toBe(1);
  });

  it("draws curves into their boxes, a level one in the middle", () => {
    expect(pathOf({ title: "", points })).toBe("M0.0 110.0L100.0 0.0L300.0 110.0");
    expect(pathOf({ title: "", points: [[1, 3], [2, 3]] })).toBe("M0.0 55.0L300.0 55.0");
  });
});
