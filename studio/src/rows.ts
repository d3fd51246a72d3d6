// Cuts the text of a trace into rows of one height, so that a list can show those on the screen alone.
import type { Pieces } from "./pieces";

/** A part of a piece: characters [from, to) of its text. */
export interface Part {
  piece: number;
  from: number;
  to: number;
}

export type Row =
  | { kind: "head"; segment: number }
  | { kind: "text"; segment: number; parts: Part[] };

const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6]/;

/** Columns that a character takes. */
export function columnsOf(character: string): number {
  if (character === "\t") return 4;
  return character.length > 1 || WIDE.test(character) ? 2 : 1;
}

/** All rows, `columns` wide; nested branches are indented by `indent` columns each. */
export function rowsOf(pieces: Pieces, columns: number, indent = 2): Row[] {
  const rows: Row[] = [];
  pieces.view.lanes.segments.forEach((segment, index) => {
    const [first, behind] = segment.pieces;
    if (segment.role === "reread" || first === behind) return;
    rows.push({ kind: "head", segment: index });
    const width = Math.max(8, columns - segment.depth * indent);
    let parts: Part[] = [];
    let used = 0;
    const flush = () => {
      if (parts.length) rows.push({ kind: "text", segment: index, parts });
      parts = [];
      used = 0;
    };
    for (let piece = first; piece < behind; piece++) {
      const text = pieces.text(piece);
      const whole = [...text].reduce((sum, character) => sum + columnsOf(character), 0);
      if (used && used + whole > width && whole <= width) flush();
      let from = 0;
      let at = 0;
      for (const character of text) {
        const next = at + character.length;
        used += columnsOf(character);
        const ahead = character === "\n" && used === 1 && piece === first; // the glue before a branch
        if ((character === "\n" && !ahead) || used >= width) {
          parts.push({ piece, from, to: next });
          flush();
          from = next;
        }
        at = next;
      }
      if (from < at || !text.length) parts.push({ piece, from, to: at });
    }
    flush();
  });
  return rows;
}
