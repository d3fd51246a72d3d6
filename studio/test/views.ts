// Views to test with: two branches behind a list, three characters a piece.
import type { LanesView, SegmentView, TraceView } from "../src/model";

function segment(over: Partial<SegmentView>): SegmentView {
  return {
    start: 0, end: 0, pieces: [0, 0], units: 0, position: 0, role: "trunk", rule: "", label: "", caption: "",
    depth: 0, tint: -1, lane: 0, x: [0, 0], sees: [], ...over,
  };
}

export function lanes(): LanesView {
  return {
    unit: "tokens", tokens: 8, prompt: 0, entries: 8, critical_path: 6, degree: 1.3333, depth: 1, most_branches: 2,
    count: 2, width: 100,
    segments: [
      segment({ end: 2, pieces: [0, 2], units: 2, x: [0, 20] }),
      segment({ start: 2, end: 4, pieces: [2, 4], units: 2, position: 2, role: "branch", rule: "step", label: "1", caption: "step 1", depth: 1, tint: 0, x: [30, 50], sees: [[0, 0]] }),
      segment({ start: 4, end: 6, pieces: [4, 6], units: 2, position: 2, role: "branch", rule: "step", label: "2", caption: "step 2", depth: 1, tint: 1, lane: 1, x: [30, 50], sees: [[0, 0]] }),
      segment({ start: 6, end: 8, pieces: [6, 8], units: 2, position: 4, role: "join", x: [60, 100], sees: [[0, 2]] }),
    ],
    junctions: [
      { kind: "fork", rule: "block", join: "reduce", x: 20, lanes: [0, 1], step: 2, segments: [1, 2], waits: [] },
      { kind: "join", rule: "block", join: "reduce", x: 50, lanes: [0, 1], step: 4, segments: [1, 2], waits: [[0, 50], [1, 50]] },
    ],
  };
}

export function trace(over: Partial<TraceView> = {}): TraceView {
  return {
    kind: "trace", version: 1, title: "a trace", schema_name: "npr", text: "<g>abc<s>def<s>ghi<t>jkl",
    lengths: [3, 3, 3, 3, 3, 3, 3, 3], sizes: [], prompt_pieces: 0,
    rules: ["guideline", "step", "takeaway"], rule_runs: [[0, 0], [2, 1], [4, 1], [6, 2]],
    forced: [[2, 3]], tags: [[0, 1], [2, 3], [4, 5], [6, 7]],
    logprobs: [-0.1, -0.2, null, -0.5, -0.5, -0.25, 0, -1], lanes: lanes(), violations: [], outcome: null,
    alternatives: [[], [], [], [], [[" no", -0.5], ["\n", -3]], [], [], []], ...over,
  };
}
