// Schemas and traces of any size, for tests and measurements in a browser.

const WORDS = "the sum of two odd numbers is even so we add first second and then some more".split(" ");

/** A legal trace of `npr` in about so many words; it ends with `last`. */
export function longTrace(words: number, blocks = Math.min(15, Math.max(1, Math.floor(words / 200))), last = "That is all."): string {
  const said = (count: number, from: number) => Array.from({ length: count }, (_, i) => WORDS[(from + i * 7) % WORDS.length]).join(" ");
  const each = Math.floor(words / blocks / 4);
  const block = (n: number) =>
    `<guideline>\n${[1, 2, 3].map((i) => `<plan>${i}: ${said(5, n + i)}</plan>\n`).join("")}</guideline>` +
    [1, 2, 3].map((i) => `\n<step>\n${i}: ${said(each, n * i)}</step>`).join("") +
    `\n<takeaway>\n${said(each, n)}</takeaway>`;
  return `${Array.from({ length: blocks }, (_, n) => block(n)).join("\n")}\n${last}`;
}

/** A file of two such traces, which differ in their first words: `BLOCKS-0` and `BLOCKS-1`. */
export function traceRows(words: number, blocks: number): string {
  const row = (index: number) => {
    const id = `${blocks}-${index}`;
    return JSON.stringify({ id, text: longTrace(words, blocks).replace("<plan>1: ", `<plan>1: ${id} `), schema: "npr" });
  };
  return `${row(0)}\n${row(1)}\n`;
}

/** A schema without a fault, of at most so many characters: block after block, in the tags of `arith`. */
export function longSchema(characters: number): string {
  const section = (n: number) => `
// Section ${n}: a plan, a step for each of its items, side by side, and what comes of them.
section_${n}: map{list_${n}} process{plan_${n}, step_${n}} reduce{takeaway_${n}}
list_${n}: "<guideline>" plan_${n}~1..4 "</guideline>"
plan_${n}: "<plan>" LABEL ":" TEXT "</plan>"
step_${n}: "<step>" LABEL ":" TEXT "</step>"
takeaway_${n}: "<takeaway>" TEXT "</takeaway>"
`;
  const whole = (count: number) => {
    const numbers = Array.from({ length: count }, (_, n) => n + 1);
    const start = `start: ${numbers.map((n) => `section_${n}`).join(" ")}\n`;
    return `%import .parallel (map, process, reduce)\n%declare TEXT\nLABEL: /[1-9]/\n${start}${numbers.map(section).join("")}`;
  };
  let count = 1;
  while (whole(count + 1).length <= characters) count++;
  return whole(count);
}
