// Look-ups in a trace view: the text, segment, rule and position of each piece, and what it sees.
import type { Run, SegmentView, TraceView } from "./model";

/** The last index whose value is at most `value`; -1 if there is none. `values` ascend. */
export function lastAtMost(values: ArrayLike<number>, value: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function sums(lengths: ArrayLike<number>): Int32Array {
  const ends = new Int32Array(lengths.length + 1);
  for (let i = 0; i < lengths.length; i++) ends[i + 1] = ends[i] + lengths[i];
  return ends;
}

function flags(runs: Run[], count: number): Uint8Array {
  const set = new Uint8Array(count);
  for (const [first, behind] of runs) set.fill(1, first, behind);
  return set;
}

export class Pieces {
  readonly count: number;
  readonly forced: Uint8Array;
  readonly tags: Uint8Array;
  readonly faults: Map<number, number>;
  /** The segment of each piece; the copy that a `reread` makes has no pieces of its own. */
  readonly segment: Int32Array;
  private readonly starts: Int32Array;
  private readonly units: Int32Array | null;
  private readonly ruleStarts: number[];

  constructor(readonly view: TraceView) {
    this.count = view.lengths.length;
    this.starts = sums(view.lengths);
    this.units = view.sizes.length ? sums(view.sizes) : null;
    this.forced = flags(view.forced, this.count);
    this.tags = flags(view.tags, this.count);
    this.faults = new Map(view.violations.map((fault, index) => [fault.piece, index]));
    this.segment = new Int32Array(this.count);
    view.lanes.segments.forEach((segment, index) => {
      if (segment.role !== "reread") this.segment.fill(index, ...segment.pieces);
    });
    this.ruleStarts = view.rule_runs.map(([first]) => first);
  }

  text(piece: number): string {
    return this.view.text.slice(this.starts[piece], this.starts[piece + 1]);
  }

  /** The text of the pieces [first, behind). */
  textOf([first, behind]: Run): string {
    return this.view.text.slice(this.starts[first], this.starts[behind]);
  }

  rule(piece: number): string {
    const run = lastAtMost(this.ruleStarts, piece);
    return run < 0 ? "" : this.view.rules[this.view.rule_runs[run][1]];
  }

  segmentOf(piece: number): SegmentView {
    return this.view.lanes.segments[this.segment[piece]];
  }

  position(piece: number): number {
    const segment = this.segmentOf(piece);
    return segment.position + this.unit(piece) - this.unit(segment.pieces[0]);
  }

  /** The unit of the trace that a piece begins with. */
  unit(piece: number): number {
    return this.units ? this.units[piece] : piece;
  }

  /** The piece that holds an entry, as a row or column of the mask. */
  atEntry(entry: number): number {
    const segments = this.view.lanes.segments;
    let index = lastAtMost(segments.map((segment) => segment.start), entry);
    while (index > 0 && segments[index].end <= entry) index--;
    const { start, pieces } = segments[Math.max(0, index)];
    const unit = this.unit(pieces[0]) + entry - start;
    return Math.min(this.count - 1, this.units ? lastAtMost(this.units, unit) : unit);
  }

  /** The entry of a piece: where its row of the mask is. */
  entry(piece: number): number {
    const segment = this.segmentOf(piece);
    return segment.start + this.unit(piece) - this.unit(segment.pieces[0]);
  }

  logprob(piece: number): number | null {
    return this.view.logprobs[piece - this.view.prompt_pieces] ?? null;
  }

  // The likeliest pieces there, if they were kept, with the logarithms of their probabilities.
  alternatives(piece: number): [string, number][] {
    return this.view.alternatives[piece - this.view.prompt_pieces] ?? [];
  }
}

/** Which segments a segment sees, itself aside. */
export function seenBy(segment: SegmentView, count: number): Uint8Array {
  return flags(
    segment.sees.map(([first, last]): Run => [first, last + 1]),
    count,
  );
}
