// What the library says is to be drawn: the models of `nprdsl/studio`, field for field. A test in
// Python compares the two.

export type Run = [number, number];

export interface SegmentView {
  start: number;
  end: number;
  pieces: Run;
  units: number;
  position: number;
  role: "trunk" | "branch" | "join" | "reread";
  rule: string;
  label: string;
  caption: string;
  depth: number;
  tint: number;
  lane: number;
  x: Run;
  sees: Run[];
}

export interface JunctionView {
  kind: "fork" | "join";
  rule: string;
  join: string;
  x: number;
  lanes: Run;
  step: number;
  segments: number[];
  waits: Run[];
}

export interface LanesView {
  unit: string;
  tokens: number;
  prompt: number;
  entries: number;
  critical_path: number;
  degree: number;
  depth: number;
  most_branches: number;
  count: number;
  width: number;
  segments: SegmentView[];
  junctions: JunctionView[];
}

export interface ViolationView {
  code: string;
  message: string;
  suggestion: string;
  rule: string;
  line: number;
  column: number;
  piece: number;
}

export interface OutcomeView {
  answer: string;
  finish: string;
  error: string;
  figures: Record<string, number>;
}

export interface TraceView {
  kind: "trace";
  version: 1;
  title: string;
  schema_name: string;
  text: string;
  lengths: number[];
  sizes: number[];
  prompt_pieces: number;
  rules: string[];
  rule_runs: Run[];
  forced: Run[];
  tags: Run[];
  logprobs: (number | null)[];
  alternatives: [string, number][][];
  lanes: LanesView;
  violations: ViolationView[];
  outcome: OutcomeView | null;
}

export interface TraceRow {
  title: string;
  schema_name: string;
  prompt: string;
  text: string;
  facts: [string, string][];
  prompt_ids: number[];
  token_ids: number[];
  logprobs: (number | null)[];
  alternatives: [number, number][][];
}

export interface TraceRowsView {
  kind: "rows";
  version: 1;
  name: string;
  rows: TraceRow[];
  other: number;
}

export interface WordView {
  kind: "tag" | "literal" | "terminal";
  text: string;
}

export interface BoxView {
  kind: "line" | "rule" | "again" | "group" | "choice" | "map" | "fork" | "join";
  name: string;
  note: string;
  words: WordView[];
  children: BoxView[];
}

export interface TagView {
  text: string;
  ids: number[];
  special: boolean;
}

export interface TerminalView {
  name: string;
  kind: string;
  says: string;
}

export interface ForkView {
  rule: string;
  branch: string;
  join: string;
  says: string;
}

export interface ExportView {
  target: string;
  lost: string[];
  refused: string;
}

export interface SchemaView {
  kind: "schema";
  version: 1;
  title: string;
  name: string;
  root: BoxView;
  tags: TagView[];
  terminals: TerminalView[];
  forks: ForkView[];
  exports: ExportView[];
  vocabulary: string;
  vocabulary_size: number;
  mode: string;
  minimum: number;
}

export interface TableView {
  title: string;
  columns: string[];
  rows: string[][];
}

export interface CurveView {
  title: string;
  points: [number, number][];
}

export interface SampleView {
  note: string;
  best: boolean;
  trace: TraceView;
}

export interface ReportView {
  kind: "report";
  version: 1;
  title: string;
  tables: TableView[];
  curves: CurveView[];
  samples: SampleView[];
}

export type View = TraceView | SchemaView | ReportView;
