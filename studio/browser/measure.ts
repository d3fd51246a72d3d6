// How quick the studio is, in a real Chromium and with a real server: `make measure-studio`. Prints a
// table; it is no test. Each figure is a median of what the clock says, which on a machine that others
// use as well is mostly waiting, beside the time that processors worked for it: that of the page's
// thread, and of the process that reads schemas.
import type { ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { loadavg } from "node:os";
import { join } from "node:path";
import type { CDPSession, Page } from "playwright-core";
import { launch, open, serve, written, type Served } from "./chromium";
import { longSchema, traceRows } from "./samples";

const TIMES = 10;
const FRAMES = 120;

function report(what: string, clock: string, worked: string, goal: string): void {
  console.log(`| ${what} | ${clock} | ${worked} | ${goal} |`);
}

function median(times: number[]): number {
  return [...times].sort((a, b) => a - b)[times.length >> 1];
}

/** Milliseconds that the page's thread has worked. */
async function pageWork(debug: CDPSession): Promise<number> {
  const { metrics } = await debug.send("Performance.getMetrics");
  return 1000 * metrics.find(({ name }) => name === "TaskDuration")!.value;
}

async function watched(page: Page): Promise<CDPSession> {
  const debug = await page.context().newCDPSession(page);
  await debug.send("Performance.enable", { timeDomain: "threadTicks" });
  return debug;
}

/** Milliseconds that the process has worked which answers who types: the first that the studio started. */
function readerWork({ pid }: ChildProcess): number {
  const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf-8").split(" ").map(Number).sort((a, b) => a - b).filter(Boolean);
  return Number(readFileSync(`/proc/${child}/schedstat`, "utf-8").split(" ")[0]) / 1e6;
}

/** Milliseconds from a key to the frame that shows what is said of the text that it made. */
async function keyToDiagnostic(page: Page, key: string, said: string): Promise<number> {
  await page.evaluate((wanted) => {
    const times = window as unknown as { key: number; done: Promise<number> };
    addEventListener("keydown", () => (times.key = performance.now()), { capture: true, once: true });
    times.done = new Promise((resolve) => {
      const pane = document.querySelector(".editor-pane")!;
      const watch = new MutationObserver(() => {
        if (!pane.querySelector(wanted)) return;
        watch.disconnect();
        requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - times.key)));
      });
      watch.observe(pane, { childList: true, subtree: true, attributes: true });
    });
  }, said);
  await page.keyboard.press(key);
  return page.evaluate(() => (window as unknown as { done: Promise<number> }).done);
}

/** Puts the cursor into the last closing tag of a schema. */
async function intoTag(page: Page, text: string): Promise<void> {
  const lines = text.split("\n");
  const line = lines.map((one) => one.includes('"</')).lastIndexOf(true);
  await page.click(".cm-content");
  await page.keyboard.press("Control+End");
  for (let up = lines.length - 1; up > line; up--) await page.keyboard.press("ArrowUp");
  await page.keyboard.press("End");
  for (let left = lines[line].length; left > lines[line].lastIndexOf('>"'); left--) await page.keyboard.press("ArrowLeft");
}

/** A quote ends the tag too early, then a letter in its place makes another tag of it: a text that was not there before. */
async function diagnostics(page: Page, { process }: Served, text: string, name: string): Promise<void> {
  await page.waitForSelector(".problems.fine");
  const debug = await watched(page);
  await intoTag(page, text);
  const keys = [
    { keyOf: () => '"', said: "ul.problems", what: "what is wrong" },
    { keyOf: (count: number) => "abcdefghijklmnopqrst"[count], said: ".problems.fine", what: "that nothing is" },
  ].map((one) => ({ ...one, times: [] as number[], worked: [] as number[], read: [] as number[] }));
  for (let count = 0; count < TIMES; count++) {
    for (const { keyOf, said, times, worked, read } of keys) {
      const [drawn, answered] = [await pageWork(debug), readerWork(process)];
      times.push(await keyToDiagnostic(page, keyOf(count), said));
      worked.push((await pageWork(debug)) - drawn);
      read.push(readerWork(process) - answered);
      if (said === "ul.problems") await page.keyboard.press("Shift+ArrowLeft");
    }
  }
  for (const { what, times, worked, read } of keys) {
    report(
      `from the last key to ${what}, ${name}`,
      `${median(times).toFixed(0)} ms, the quickest ${Math.min(...times).toFixed(0)}`,
      `${median(read).toFixed(0)} ms reading, ${median(worked).toFixed(0)} in the page`,
      "150 ms",
    );
  }
}

/** Clicks from one trace to another whose view is there, until a frame has shown it. */
async function drawing(page: Page, blocks: number, name: string): Promise<void> {
  const ids = [0, 1].map((index) => `${blocks}-${index}`);
  for (const id of ids) {
    await page.click(`.trace-list .where >> text=id ${id}`);
    await page.waitForFunction((wanted) => document.querySelector(".text-list")?.textContent?.includes(wanted), id);
  }
  const debug = await watched(page);
  const [times, worked]: number[][] = [[], []];
  for (let count = 0; count < TIMES; count++) {
    const before = await pageWork(debug);
    times.push(
      await page.evaluate(async (id) => {
        const button = [...document.querySelectorAll<HTMLElement>(".trace-list .where")].find((one) => one.textContent!.includes(`id ${id}`))!;
        const from = performance.now();
        button.click();
        while (!document.querySelector(".text-list")!.textContent!.includes(id)) await new Promise((go) => setTimeout(go));
        await new Promise(requestAnimationFrame);
        await new Promise((go) => setTimeout(go));
        return performance.now() - from;
      }, ids[count % 2]),
    );
    worked.push((await pageWork(debug)) - before);
  }
  report(`from a click to the frame that shows ${name}`, `${median(times).toFixed(0)} ms, the quickest ${Math.min(...times).toFixed(0)}`, `${median(worked).toFixed(0)} ms in the page`, "100 ms");
}

/** Does something in each of many frames. */
async function moving(page: Page, debug: CDPSession, what: string, act: string): Promise<void> {
  const before = await pageWork(debug);
  const gaps = await page.evaluate<number[]>(`(async () => {
    const gaps = [];
    let last = await new Promise(requestAnimationFrame);
    for (let frame = 0; frame < ${FRAMES}; frame++) {
      const at = frame / ${FRAMES};
      ${act}
      const now = await new Promise(requestAnimationFrame);
      gaps.push(now - last);
      last = now;
    }
    return gaps;
  })()`);
  const worked = ((await pageWork(debug)) - before) / FRAMES;
  report(what, `${median(gaps).toFixed(1)} ms a frame`, `${worked.toFixed(1)} ms in the page`, "16.7 ms");
}

const SCROLL = `const list = document.querySelector(".text-list"); list.scrollTop = (list.scrollHeight - list.clientHeight) * at;`;
const pointer = (selector: string) => `
  const element = document.querySelector("${selector}"), box = element.getBoundingClientRect();
  const place = { clientX: box.left + box.width * (0.1 + 0.3 * at), clientY: box.top + box.height * (0.1 + 0.8 * at), bubbles: true };
  const target = document.elementFromPoint(place.clientX, place.clientY) ?? element;
  for (const kind of ["mousemove", "mouseover"]) target.dispatchEvent(new MouseEvent(kind, place));`;

const LONG = longSchema(20_000);
const NPR = join(import.meta.dirname, "..", "..", "grammars", "npr.lark");
const BLOCKS = 15; // `npr` has sixteen at most
const studio = await serve(written("long.lark", LONG), "--traces", written("long.jsonl", traceRows(32_000, BLOCKS)));
const browser = await launch();
try {
  const page = await open(browser, studio.url);
  report("", "by the clock", "of processors", "goal");
  report("---", "---", "---", "---");
  await page.waitForFunction(() => document.querySelectorAll(".trace-list li").length === 2);
  await diagnostics(page, studio, LONG, `${(LONG.length / 1000).toFixed(1)} kB`);
  await page.selectOption(".choose select", { label: "npr" });
  await diagnostics(page, studio, readFileSync(NPR, "utf-8"), "`npr`");
  const name = `32,000 words in ${BLOCKS} blocks`;
  await drawing(page, BLOCKS, name);
  const debug = await watched(page);
  await moving(page, debug, `scrolling the text of ${name}`, SCROLL);
  await moving(page, debug, "the pointer over its text", pointer(".text-list"));
  await moving(page, debug, "the pointer over its mask", pointer(".mask canvas"));
  console.log(`\nload of the machine: ${loadavg().map((load) => load.toFixed(1)).join(", ")}`);
} finally {
  studio.process.kill();
  await browser.close();
}
