// One trace: figures, lanes, text, mask, and what is known of the piece that is pointed at.
import { useCallback, useMemo, useState } from "preact/hooks";
import { Inspector } from "./inspector";
import { Lanes } from "./lanes";
import { Mask } from "./mask";
import type { SegmentView, TraceView } from "./model";
import { Pieces, seenBy } from "./pieces";
import { Said } from "./said";
import { TextList } from "./text-list";

const BEGINNING = 80; // characters of a segment's text that its bar may show

export function TracePanel({ view }: { view: TraceView }) {
  const pieces = useMemo(() => new Pieces(view), [view]);
  const [pointed, setPointed] = useState<number | null>(null);
  const [picked, setPicked] = useState<number | null>(null);
  const [selected, setSelected] = useState<number | null>(null);
  const [target, setTarget] = useState<{ piece: number } | null>(null);
  const current = pointed ?? picked;
  const here = current === null ? selected : pieces.segment[current];
  const seen = useMemo(() => {
    if (here === null) return null;
    const found = seenBy(view.lanes.segments[here], view.lanes.segments.length);
    found[here] = 1;
    return found;
  }, [view, here]);
  const text = useCallback((segment: SegmentView) => beginning(pieces, segment), [pieces]);
  const goTo = useCallback((piece: number) => {
    setSelected(null);
    setPicked(piece);
    setTarget({ piece });
  }, []);
  const select = useCallback(
    (segment: number) => {
      setSelected(segment);
      setPicked(null);
      setTarget({ piece: view.lanes.segments[segment].pieces[0] });
    },
    [view],
  );
  const entry = current === null ? null : pieces.entry(current);
  const lanes = useMemo(
    () => <Lanes lanes={view.lanes} text={text} selected={selected} seen={seen} onSelect={select} />,
    [view, text, selected, seen],
  );
  return (
    <div class="trace">
      <Figures view={view} />
      <Faults view={view} onPick={goTo} />
      <section class="card" aria-label="Lanes">
        {lanes}
      </section>
      <div class="columns">
        <section class="card text-card" aria-label="Text">
          <TextList
            pieces={pieces}
            current={current}
            seen={seen}
            selected={selected}
            target={target}
            onPoint={setPointed}
            onPick={(piece) => {
              setSelected(null);
              setPicked(piece);
            }}
          />
        </section>
        <aside class="side">
          <section class="card" aria-label="The piece that is pointed at">
            <Inspector pieces={pieces} piece={current} />
          </section>
          <section class="card" aria-label="Attention mask">
            <h2>What sees what</h2>
            <Mask
              lanes={view.lanes}
              row={entry}
              onPoint={(query) => setPointed(query === null ? null : pieces.atEntry(query))}
              onPick={(query) => goTo(pieces.atEntry(query))}
            />
          </section>
        </aside>
      </div>
    </div>
  );
}

export function beginning(pieces: Pieces, segment: SegmentView): string {
  const [first, behind] = segment.pieces;
  let from = Math.max(first, pieces.view.prompt_pieces);
  while (from < behind && (pieces.tags[from] || !pieces.text(from).trim())) from++;
  let text = "";
  for (let piece = from; piece < behind && text.length < BEGINNING; piece++) text += pieces.tags[piece] ? " " : pieces.text(piece);
  return text.replace(/\s+/g, " ").trim();
}

function Figures({ view }: { view: TraceView }) {
  const { lanes, outcome } = view;
  const shown: [string, string, string][] = [
    [String(lanes.tokens), lanes.unit, "of the trace"],
    [String(lanes.critical_path), "critical path", "that had to be produced one after another"],
    [`${lanes.degree.toFixed(2)}×`, "degree", `${lanes.unit} for each one of the critical path`],
    [String(lanes.most_branches), lanes.most_branches === 1 ? "branch at once" : "branches at once", "at most"],
  ];
  if (lanes.depth > 1) shown.push([String(lanes.depth), "deep", "blocks in blocks"]);
  if (outcome?.figures.tokens_per_s) shown.push([outcome.figures.tokens_per_s.toFixed(0), "tokens/s", "of the trace"]);
  return (
    <div class="figures">
      {shown.map(([value, name, about]) => (
        <div class="figure" title={about}>
          <b>{value}</b>
          <span>{name}</span>
        </div>
      ))}
      {outcome && (
        <div class="figure answer">
          <b>{outcome.answer || "–"}</b>
          <span>
            answer · {outcome.finish} {outcome.error}
          </span>
        </div>
      )}
      {view.violations.length > 0 && (
        <div class="figure wrong">
          <b>{view.violations.length}</b>
          <span>{view.violations.length === 1 ? "fault" : "faults"}</span>
        </div>
      )}
    </div>
  );
}

function Faults({ view, onPick }: { view: TraceView; onPick: (piece: number) => void }) {
  if (!view.violations.length) return null;
  return (
    <ul class="faults" aria-label="Faults of the trace">
      {view.violations.map((fault) => (
        <li>
          <button onClick={() => onPick(fault.piece)}>
            <code class="code">{fault.code}</code> <Said text={fault.message} />
            {fault.suggestion && <em>
                {" "}
                – <Said text={fault.suggestion} />
              </em>}
            <small>
              {" "}
              line {fault.line}, column {fault.column}, in {fault.rule}
            </small>
          </button>
        </li>
      ))}
    </ul>
  );
}
