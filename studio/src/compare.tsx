// Two traces side by side: their figures, their lanes on one scale of time, their texts where they differ.
import { useMemo, useState } from "preact/hooks";
import { Lanes } from "./lanes";
import type { SegmentView, TraceView } from "./model";
import { Pieces } from "./pieces";
import { TextList } from "./text-list";
import { beginning } from "./trace";

export function Comparison({ one, other }: { one: TraceView; other: TraceView }) {
  const both = useMemo(() => [new Pieces(one), new Pieces(other)] as const, [one, other]);
  const differs = useMemo(() => differences(...both), [both]);
  const longest = Math.max(1, one.lanes.critical_path, other.lanes.critical_path);
  return (
    <div class="comparison">
      <FigureTable one={one} other={other} same={differs.every((flags) => !flags.includes(1))} />
      {both.map((pieces, index) => (
        <Side
          key={index}
          pieces={pieces}
          differs={differs[index]}
          share={pieces.view.lanes.critical_path / longest}
        />
      ))}
    </div>
  );
}

function Side({ pieces, differs, share }: { pieces: Pieces; differs: Uint8Array; share: number }) {
  const { view } = pieces;
  const [picked, setPicked] = useState<number | null>(null);
  const [selected, setSelected] = useState<number | null>(null);
  const [target, setTarget] = useState<{ piece: number } | null>(null);
  const first = differs.indexOf(1);
  const goTo = (piece: number) => {
    setPicked(piece);
    setSelected(null);
    setTarget({ piece });
  };
  return (
    <section class="compared" aria-label={view.title}>
      <h2 class="compared-title">
        {view.title}{" "}
        {first >= 0 && (
          <button class="link" onClick={() => goTo(first)}>
            the first difference
          </button>
        )}
      </h2>
      <div class="card compared-lanes">
        <div style={{ width: `${Math.max(25, 100 * share)}%` }}>
          <Lanes
            lanes={view.lanes}
            text={(segment) => beginning(pieces, segment)}
            selected={selected}
            seen={null}
            onSelect={(segment) => {
              setSelected(segment);
              setPicked(null);
              setTarget({ piece: view.lanes.segments[segment].pieces[0] });
            }}
          />
        </div>
      </div>
      <div class="card text-card">
        <TextList
          pieces={pieces}
          current={picked}
          seen={null}
          selected={selected}
          target={target}
          differs={differs}
          onPoint={() => {}}
          onPick={(piece) => {
            setPicked(piece);
            setSelected(null);
          }}
        />
      </div>
    </section>
  );
}

type Figure = [name: string, one: string, other: string];

function FigureTable({ one, other, same }: { one: TraceView; other: TraceView; same: boolean }) {
  const rows = figures(one, other);
  return (
    <div class="card compared-figures" role="group" aria-label="Figures of both" tabIndex={0}>
      <table>
        <thead>
          <tr>
            <th scope="col">{same ? "the same text" : "the texts differ"}</th>
            {rows.map(([name]) => (
              <th scope="col">{name}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {[one, other].map((view, index) => (
            <tr>
              <th scope="row">{view.title}</th>
              {rows.map((row) => (
                <td class={row[1] === row[2] ? "" : "unlike"}>{row[index + 1]}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function figures(one: TraceView, other: TraceView): Figure[] {
  const shown = (name: string, value: (view: TraceView) => string | number | undefined): Figure => {
    const told = (view: TraceView) => {
      const said = value(view);
      return said === undefined || said === "" ? "–" : typeof said === "number" ? String(Math.round(said * 100) / 100) : said;
    };
    return [name, told(one), told(other)];
  };
  const measured = (name: string, figure: string) => shown(name, (view) => view.outcome?.figures[figure]);
  return [
    shown("answer", (view) => view.outcome?.answer),
    shown("end", (view) => view.outcome?.finish),
    shown("schema", (view) => view.schema_name),
    shown("faults", (view) => view.violations.length),
    shown(one.lanes.unit === other.lanes.unit ? one.lanes.unit : "length", (view) => view.lanes.tokens),
    shown("critical path", (view) => view.lanes.critical_path),
    shown("degree", (view) => view.lanes.degree),
    shown("branches at once", (view) => view.lanes.most_branches),
    measured("calls of the model", "forwards"),
    measured("seconds", "time_s"),
    measured("tokens/s", "tokens_per_s"),
  ].filter(([, left, right]) => left !== "–" || right !== "–");
}

/** For both traces 1 at each piece of a segment that stands between what its counterpart begins and
 * ends with as well; of a segment without a counterpart, at all of them. */
export function differences(one: Pieces, other: Pieces): [Uint8Array, Uint8Array] {
  const flags: [Uint8Array, Uint8Array] = [new Uint8Array(one.count), new Uint8Array(other.count)];
  const theirs = named(other.view.lanes.segments);
  const open = new Set(theirs.values());
  for (const [name, segment] of named(one.view.lanes.segments)) {
    const counterpart = theirs.get(name);
    if (counterpart) open.delete(counterpart);
    compareSegments(one, segment, other, counterpart, flags);
  }
  for (const segment of open) flags[1].fill(1, ...segment.pieces);
  return flags;
}

function compareSegments(one: Pieces, mine: SegmentView, other: Pieces, theirs: SegmentView | undefined, flags: [Uint8Array, Uint8Array]): void {
  const [begin, behind] = mine.pieces;
  if (!theirs) {
    flags[0].fill(1, begin, behind);
    return;
  }
  const [from, to] = theirs.pieces;
  const least = Math.min(behind - begin, to - from);
  const alike = (left: number, right: number) => one.text(left) === other.text(right);
  let front = 0;
  while (front < least && alike(begin + front, from + front)) front++;
  let back = 0;
  while (back < least - front && alike(behind - 1 - back, to - 1 - back)) back++;
  flags[0].fill(1, begin + front, behind - back);
  flags[1].fill(1, from + front, to - back);
}

/** The segments by role and caption, numbered where several have the same. */
function named(segments: SegmentView[]): Map<string, SegmentView> {
  const counts = new Map<string, number>();
  const found = new Map<string, SegmentView>();
  for (const segment of segments) {
    if (segment.role === "reread") continue;
    const kind = `${segment.role} ${segment.depth} ${segment.caption}`;
    const number = counts.get(kind) ?? 0;
    counts.set(kind, number + 1);
    found.set(`${kind} ${number}`, segment);
  }
  return found;
}
