// The attention mask on a canvas: rows are queries, columns keys; a key has the colour of its segment.
// It is drawn from what each segment sees, so it is as exact at 32,000 tokens as at 32.
import { useEffect, useRef, useState } from "preact/hooks";
import type { LanesView } from "./model";
import { useThemeChanges } from "./theme";

const STRIP = 10;

export interface MaskProps {
  lanes: LanesView;
  /** The entry whose row is marked. */
  row: number | null;
  onPoint: (query: number | null) => void;
  onPick: (query: number) => void;
}

export function Mask({ lanes, row, onPoint, onPick }: MaskProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [side, setSide] = useState(320);
  const colours = useThemeChanges();
  const [key, setKey] = useState<[number, number] | null>(null);
  useEffect(() => {
    const measure = () => setSide(Math.max(160, Math.min(520, canvas.current?.parentElement?.clientWidth ?? 320)));
    measure();
    const watch = new ResizeObserver(measure);
    if (canvas.current?.parentElement) watch.observe(canvas.current.parentElement);
    return () => watch.disconnect();
  }, []);
  useEffect(() => {
    if (canvas.current) draw(canvas.current, lanes, side);
  }, [lanes, side, colours]);
  const place = (event: MouseEvent): [number, number] | null => {
    const scale = lanes.entries / (side - STRIP);
    const box = canvas.current!.getBoundingClientRect();
    const at = [event.clientY - box.top - STRIP, event.clientX - box.left - STRIP].map((pixels) => Math.floor(pixels * scale));
    return at.every((entry) => entry >= 0 && entry < lanes.entries) ? [at[0], at[1]] : null;
  };
  const marker = row === null ? null : STRIP + ((row + 0.5) * (side - STRIP)) / Math.max(1, lanes.entries);
  return (
    <figure class="mask">
      <div class="mask-box" style={{ height: `${side}px` }}>
        <canvas
          ref={canvas}
          role="img"
          aria-label={`Attention mask of ${lanes.entries} entries: rows are queries, columns keys`}
          style={{ width: `${side}px`, height: `${side}px` }}
          onMouseMove={(event) => {
            const found = place(event);
            setKey(found);
            onPoint(found ? found[0] : null);
          }}
          onMouseLeave={() => {
            setKey(null);
            onPoint(null);
          }}
          onClick={(event) => {
            const found = place(event);
            if (found) onPick(found[0]);
          }}
        />
        {marker !== null && <span class="mask-row" style={{ top: `${marker}px`, left: `${STRIP}px`, width: `${side - STRIP}px` }} />}
      </div>
      <figcaption>{key ? `row ${key[0]}, ${named(lanes, key[0])} · column ${key[1]}, ${named(lanes, key[1])}` : "rows see columns"}</figcaption>
    </figure>
  );
}

function named(lanes: LanesView, entry: number): string {
  const segment = lanes.segments.find((one) => one.start <= entry && entry < one.end);
  return segment?.caption || "trunk";
}

/** Draws all of it: a rectangle for each run of segments that a segment sees, a triangle for itself. */
export function draw(canvas: HTMLCanvasElement, lanes: LanesView, side: number): void {
  const density = window.devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(side * density);
  const context = canvas.getContext("2d");
  if (!context) return;
  const style = getComputedStyle(document.documentElement);
  const fill = (tint: number) => style.getPropertyValue(`--strong${tint}`) || "#888";
  const fills = new Map([-1, 0, 1, 2, 3, 4, 5].map((tint) => [tint, fill(tint)]));
  context.scale(density, density);
  const scale = (side - STRIP) / Math.max(1, lanes.entries);
  const at = (entry: number) => Math.round((STRIP + entry * scale) * density) / density; // no seams
  for (const segment of lanes.segments) {
    if (segment.start === segment.end) continue;
    const [top, bottom] = [at(segment.start), at(segment.end)];
    context.globalAlpha = 0.62;
    for (const [first, last] of segment.sees) {
      for (let key = first; key <= last; key++) {
        const seen = lanes.segments[key];
        if (seen.start === seen.end) continue;
        context.fillStyle = fills.get(seen.tint)!;
        context.fillRect(at(seen.start), top, at(seen.end) - at(seen.start), bottom - top);
      }
    }
    context.fillStyle = fills.get(segment.tint)!;
    context.beginPath();
    context.moveTo(top, top);
    context.lineTo(top, bottom);
    context.lineTo(bottom, bottom);
    context.fill();
    context.globalAlpha = 1;
    context.fillRect(top, 0, Math.max(1, bottom - top - 0.5), STRIP - 4);
    context.fillRect(0, top, STRIP - 4, Math.max(1, bottom - top - 0.5));
  }
}
