// What is known of the piece that is pointed at.
import type { Pieces } from "./pieces";
import { Said } from "./said";

export function Inspector({ pieces, piece }: { pieces: Pieces; piece: number | null }) {
  if (piece === null) {
    return <p class="faint hint">Point at a word of the text, or go there with the arrow keys: what it sees stays lit.</p>;
  }
  const segment = pieces.segmentOf(piece);
  const logprob = pieces.logprob(piece);
  const fault = pieces.faults.get(piece);
  const seen = segment.sees.reduce((sum, [first, last]) => {
    const segments = pieces.view.lanes.segments;
    for (let index = first; index <= last; index++) sum += segments[index].end - segments[index].start;
    return sum;
  }, 0);
  const own = pieces.entry(piece) - segment.start;
  const prompt = piece < pieces.view.prompt_pieces;
  const rows: [string, string][] = [
    ["position", String(pieces.position(piece))],
    ["rule", prompt ? "prompt" : pieces.rule(piece) || "–"],
    ["branch", segment.caption || "trunk"],
    ["sees", `${seen + own + 1} of ${pieces.view.lanes.entries} entries`],
  ];
  if (pieces.forced[piece]) rows.push(["chosen", "no: nothing else was legal"]);
  if (logprob !== null) rows.push(["probability", percent(Math.exp(logprob))]);
  const likeliest = pieces.alternatives(piece);
  return (
    <div class="inspector" aria-live="polite">
      <code class="big">{visible(pieces.text(piece))}</code>
      <dl>
        {rows.map(([name, value]) => (
          <>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </>
        ))}
      </dl>
      {likeliest.length > 0 && (
        <ol class="likeliest" aria-label="the model's likeliest tokens here">
          {likeliest.map(([text, chance]) => (
            <li>
              <code>{visible(text)}</code> {percent(Math.exp(chance))}
            </li>
          ))}
        </ol>
      )}
      {fault !== undefined && <p class="fault-note"><Said text={pieces.view.violations[fault].message} /></p>}
    </div>
  );
}

function visible(text: string): string {
  return text.replace(/\n/g, "↵").replace(/ /g, "␣") || "∅";
}

export function percent(share: number): string {
  return share >= 0.9995 ? "100 %" : share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}
