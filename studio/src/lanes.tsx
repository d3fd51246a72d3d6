// The lanes of a trace: time runs across, each live branch has a lane, forks and joins are bars.
import { useEffect, useRef } from "preact/hooks";
import type { JunctionView, LanesView, SegmentView } from "./model";

const CLOCK = 18;
const GAP = 6;
const WIDTH = 1000; // of lanes that fit into a window
const LEAST = 620; // pixels
const NEAR = 44; // numbers on the clock that are nearer to each other are left out

export interface LanesProps {
  lanes: LanesView;
  /** The text of a segment, for its bar. */
  text: (segment: SegmentView) => string;
  selected: number | null;
  /** 1 for each segment that is seen; null lights all. */
  seen: Uint8Array | null;
  onSelect: (segment: number) => void;
  follow?: boolean;
}

export function Lanes(props: LanesProps) {
  const { lanes, text, selected, seen, onSelect, follow } = props;
  const box = useRef<HTMLDivElement>(null);
  const height = lanes.count > 8 ? 26 : 42;
  const y = (lane: number) => CLOCK + lane * (height + GAP);
  useEffect(() => {
    if (follow && box.current) box.current.scrollLeft = box.current.scrollWidth;
  });
  const share = (x: number) => `${(100 * x) / lanes.width}%`;
  const first = lanes.segments.findIndex((segment) => segment.x[1] > segment.x[0]);
  const current = selected ?? first;
  const move = (event: KeyboardEvent) => {
    const next = neighbour(lanes, current, event.key);
    if (next === null) return;
    event.preventDefault();
    onSelect(next);
    box.current?.querySelector<HTMLElement>(`[data-segment="${next}"]`)?.focus();
  };
  return (
    <div class="lanes-scroll" ref={box} role="group" aria-label={`Lanes of the trace: ${lanes.count}`} onKeyDown={move}>
      <div
        class={`lanes${lanes.count > 8 ? " compact" : ""}`}
        style={{ height: `${y(lanes.count)}px`, minWidth: `${lanes.width > WIDTH ? lanes.width : LEAST}px` }}
      >
        {clock(lanes).map(([x, step]) => (
          <span class={`clock${x === lanes.width ? " end" : ""}`} aria-hidden="true" style={{ left: share(x) }}>
            {step}
          </span>
        ))}
        {lanes.junctions.flatMap((junction) =>
          junction.waits
            .filter(([, end]) => end < junction.x)
            .map(([lane, end]) => (
              <span
                class="wait"
                aria-hidden="true"
                style={{ left: share(end), width: share(junction.x - end + 8), top: `${y(lane) + height / 2}px` }}
              />
            )),
        )}
        {lanes.segments.map((segment, index) =>
          segment.x[1] > segment.x[0] ? (
            <button
              key={index}
              class={`bar tint${segment.tint}${segment.role === "reread" ? " copy" : ""}${index === selected ? " chosen" : ""}${seen && !seen[index] ? " unseen" : ""}`}
              data-segment={index}
              tabIndex={index === current ? 0 : -1}
              aria-pressed={index === selected}
              title={described(segment, lanes.unit)}
              style={{ left: share(segment.x[0]), width: share(segment.x[1] - segment.x[0]), top: `${y(segment.lane)}px`, height: `${height}px` }}
              onClick={() => onSelect(index)}
            >
              <span class="name">
                <i>{named(segment)[0]}</i>
                {named(segment)[1]} <small>{segment.role === "reread" ? segment.end - segment.start : segment.units}</small>
              </span>
              <span class="says">{segment.role === "reread" ? "" : text(segment)}</span>
            </button>
          ) : null,
        )}
        {lanes.junctions.map((junction) => (
          <span
            class="junction"
            title={told(junction, lanes.unit)}
            style={{
              left: `calc(${share(junction.x + 8)} - 2px)`,
              top: `${y(junction.lanes[0]) - 3}px`,
              height: `${(junction.lanes[1] - junction.lanes[0]) * (height + GAP) + height + 6}px`,
            }}
          />
        ))}
      </div>
    </div>
  );
}

type Mark = [number, number]; // x, and the number that stands there

function clock(lanes: LanesView): Mark[] {
  const marks: Mark[] = lanes.junctions.filter((j) => j.lanes[0] === 0).map((j): Mark => [j.x + 8, j.step]);
  marks.sort((a, b) => a[0] - b[0]);
  const shown: Mark[] = [];
  let free = 0;
  for (const mark of marks) {
    if (mark[0] < free || mark[0] > lanes.width - NEAR) continue;
    shown.push(mark);
    free = mark[0] + NEAR;
  }
  return [...shown, [lanes.width, lanes.critical_path]];
}
/** The caption in two parts; the first is left out where there is no room. */
function named({ caption, label }: SegmentView): [string, string] {
  const short = label && caption.endsWith(label) ? label : "";
  return short ? [caption.slice(0, caption.length - short.length), short] : [caption, ""];
}

function described(segment: SegmentView, unit: string): string {
  const size = segment.role === "reread" ? segment.end - segment.start : segment.units;
  const name = segment.caption || (segment.role === "join" ? "behind the join" : "beginning");
  return `${name}: ${size} ${unit}, from position ${segment.position}`;
}

function told(junction: JunctionView, unit: string): string {
  const what = junction.kind === "fork" ? `fork of ${junction.segments.length} branches` : `${junction.join} of ${junction.segments.length} branches`;
  return `${what}, after ${junction.step} ${unit} one after another`;
}

/** The segment that an arrow key leads to. */
export function neighbour(lanes: LanesView, from: number, key: string): number | null {
  const here = lanes.segments[from];
  if (!here) return null;
  const drawn = lanes.segments.map((segment, index) => ({ segment, index })).filter(({ segment }) => segment.x[1] > segment.x[0]);
  const nearest = (fits: (s: SegmentView) => boolean, far: (s: SegmentView) => number) =>
    drawn.filter(({ segment }) => fits(segment)).sort((a, b) => far(a.segment) - far(b.segment))[0]?.index ?? null;
  const overlaps = (s: SegmentView) => Math.abs(s.x[0] - here.x[0]);
  switch (key) {
    case "ArrowRight":
      return nearest((s) => s.x[0] >= here.x[1], (s) => s.x[0] * 100 + Math.abs(s.lane - here.lane));
    case "ArrowLeft":
      return nearest((s) => s.x[1] <= here.x[0], (s) => -s.x[1] * 100 + Math.abs(s.lane - here.lane));
    case "ArrowDown":
      return nearest((s) => s.lane > here.lane, (s) => (s.lane - here.lane) * 1e6 + overlaps(s));
    case "ArrowUp":
      return nearest((s) => s.lane < here.lane, (s) => (here.lane - s.lane) * 1e6 + overlaps(s));
    default:
      return null;
  }
}
