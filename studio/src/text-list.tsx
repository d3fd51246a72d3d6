// The text of a trace, of any length: only the rows on the screen exist. Pieces are pointed at with the
// mouse or, when the list has the focus, with the arrow keys.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Pieces } from "./pieces";
import { rowsOf, type Part, type Row } from "./rows";

export const ROW = 22; // pixels
const BEYOND = 6; // rows above and below the screen
const INDENT = 2;

export interface TextListProps {
  pieces: Pieces;
  current: number | null;
  seen: Uint8Array | null;
  selected: number | null;
  /** Scrolls to a piece whenever the object changes. */
  target: { piece: number } | null;
  /** 1 at each piece that stands otherwise in the trace beside. */
  differs?: Uint8Array;
  onPoint: (piece: number | null) => void;
  onPick: (piece: number) => void;
}

export function TextList(props: TextListProps) {
  const { pieces, current, target, onPoint, onPick } = props;
  const box = useRef<HTMLDivElement>(null);
  const ruler = useRef<HTMLSpanElement>(null);
  const [size, setSize] = useState({ columns: 80, height: 480 });
  const [top, setTop] = useState(0);
  useLayoutEffect(() => {
    const measure = () => {
      const character = (ruler.current?.getBoundingClientRect().width ?? 0) / 10 || 7.8;
      const width = (box.current?.clientWidth ?? 0) || 700;
      setSize({ columns: Math.max(12, Math.floor((width - 34) / character)), height: box.current?.clientHeight || 480 });
    };
    measure();
    const watch = new ResizeObserver(measure);
    if (box.current) watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  const rows = useMemo(() => rowsOf(pieces, size.columns, INDENT), [pieces, size.columns]);
  const rowOf = useMemo(() => {
    const found = new Int32Array(pieces.count).fill(-1);
    rows.forEach((row, index) => {
      if (row.kind === "text") for (const { piece } of row.parts) if (found[piece] < 0) found[piece] = index;
    });
    return found;
  }, [rows]);
  const reveal = (piece: number, high: boolean) => {
    const element = box.current;
    if (!element || rowOf[piece] === undefined) return;
    const at = rowOf[piece] * ROW;
    if (high) element.scrollTop = Math.max(0, at - 2 * ROW);
    else if (at < element.scrollTop) element.scrollTop = at - ROW;
    else if (at + ROW > element.scrollTop + element.clientHeight) element.scrollTop = at + 2 * ROW - element.clientHeight;
  };
  useEffect(() => {
    if (target) reveal(target.piece, true);
  }, [target, rowOf]);
  const move = (event: KeyboardEvent) => {
    const next = stepped(rows, rowOf, pieces.count, current ?? -1, event.key);
    if (next === null) return;
    event.preventDefault();
    onPick(next);
    reveal(next, false);
  };
  const first = Math.max(0, Math.floor(top / ROW) - BEYOND);
  const last = Math.min(rows.length, Math.ceil((top + size.height) / ROW) + BEYOND);
  const pointed = (event: Event) => {
    const found = (event.target as HTMLElement).closest?.<HTMLElement>("[data-piece]");
    return found ? Number(found.dataset.piece) : null;
  };
  return (
    <div
      class="text-list"
      ref={box}
      style={{ height: `${rows.length * ROW + 4}px` }}
      tabIndex={0}
      role="group"
      aria-roledescription="text in pieces"
      aria-label="Text of the trace; the arrow keys go from piece to piece"
      onScroll={(event) => setTop((event.currentTarget as HTMLElement).scrollTop)}
      onKeyDown={move}
      onMouseOver={(event) => onPoint(pointed(event))}
      onMouseLeave={() => onPoint(null)}
      onClick={(event) => {
        const piece = pointed(event);
        if (piece !== null) onPick(piece);
      }}
    >
      <span class="ruler" ref={ruler} aria-hidden="true">
        0123456789
      </span>
      <div class="rows" style={{ height: `${rows.length * ROW}px` }}>
        {rows.slice(first, last).map((row, index) => (
          <RowLine key={first + index} row={row} at={first + index} {...props} />
        ))}
      </div>
    </div>
  );
}

function RowLine({ row, at, pieces, current, seen, selected, differs }: TextListProps & { row: Row; at: number }) {
  const segment = pieces.view.lanes.segments[row.segment];
  const here = current === null ? selected : pieces.segment[current];
  const style = { top: `${at * ROW}px`, paddingLeft: `calc(${segment.depth * INDENT}ch + 10px)` };
  const dim = seen && row.segment !== here && !seen[row.segment] ? " unseen" : "";
  const chosen = row.segment === selected ? " chosen" : "";
  if (row.kind === "head") {
    return (
      <div class={`row head tint${segment.tint}${dim}${chosen}`} style={style}>
        <b>{segment.caption || (segment.role === "join" ? "after the join" : "trunk")}</b>
        <small>
          {segment.units} {pieces.view.lanes.unit} from position {segment.position}
        </small>
      </div>
    );
  }
  return (
    <div class={`row tint${segment.tint}${dim}${chosen}`} style={style}>
      {row.parts.map((part) => (
        <PieceText part={part} pieces={pieces} current={current} differs={differs?.[part.piece] === 1} later={row.segment === here && current !== null && part.piece > current} />
      ))}
    </div>
  );
}

function PieceText({ part, pieces, current, differs, later }: { part: Part; pieces: Pieces; current: number | null; differs: boolean; later: boolean }) {
  const { piece } = part;
  let kind = "piece";
  if (pieces.tags[piece]) kind += " tag";
  if (pieces.forced[piece]) kind += " forced";
  if (piece < pieces.view.prompt_pieces) kind += " prompt";
  if (pieces.faults.has(piece)) kind += " fault";
  if (differs) kind += " differs";
  if (piece === current) kind += " current";
  else if (later) kind += " unseen";
  return (
    <span class={kind} data-piece={piece}>
      {pieces.text(piece).slice(part.from, part.to).replace(/\n/g, "↵").replace(/\t/g, "    ")}
    </span>
  );
}

/** The piece that a key leads to from `current`; null for other keys and at the ends. */
export function stepped(rows: Row[], rowOf: Int32Array, count: number, current: number, key: string): number | null {
  const within = (piece: number) => (piece >= 0 && piece < count && piece !== current ? piece : null);
  switch (key) {
    case "ArrowRight":
      return within(current + 1);
    case "ArrowLeft":
      return within(current - 1);
    case "Home":
      return within(0);
    case "End":
      return within(count - 1);
    case "ArrowDown":
    case "ArrowUp": {
      if (current < 0) return within(0);
      const by = key === "ArrowDown" ? 1 : -1;
      const here = rows[rowOf[current]];
      const place = here?.kind === "text" ? here.parts.findIndex((part) => part.piece === current) : 0;
      for (let at = rowOf[current] + by; at >= 0 && at < rows.length; at += by) {
        const row = rows[at];
        if (row.kind === "text") return row.parts[Math.min(place, row.parts.length - 1)].piece;
      }
      return null;
    }
    default:
      return null;
  }
}
