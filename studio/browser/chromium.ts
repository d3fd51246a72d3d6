// A Chromium of the system, a studio that runs, and pages that are files; where there is no Chromium
// the tests are skipped.
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type Browser, type Page } from "playwright-core";

const PLACES = [process.env.CHROMIUM ?? "", "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const ARGUMENTS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
export const CHROMIUM = PLACES.find((place) => place && existsSync(place));
export const PATIENCE = 300_000; // ms, on a machine that is busy
const PYTHON = join(import.meta.dirname, "..", "..", ".venv", "bin", "python");
const AXE = readFileSync(join(import.meta.dirname, "..", "node_modules", "axe-core", "axe.min.js"), "utf-8");
const PICTURES = process.env.PICTURES && join(import.meta.dirname, "..", "..", process.env.PICTURES); // a folder of the checkout
const ENVIRONMENT = { ...process.env, OMP_NUM_THREADS: "1", HF_HUB_OFFLINE: "1" };

export async function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: CHROMIUM, args: ARGUMENTS });
}

/** A page that fails its test on any error, and on whatever its policy forbids. */
export async function open(browser: Browser, url: string, options: Parameters<Browser["newPage"]>[0] = {}): Promise<Page & { errors: string[] }> {
  const page = (await browser.newPage({ viewport: { width: 1280, height: 800 }, ...options })) as Page & { errors: string[] };
  page.errors = [];
  page.setDefaultTimeout(PATIENCE);
  page.on("pageerror", (error) => page.errors.push(error.message));
  page.on("console", (message) => message.type() === "error" && page.errors.push(message.text()));
  await page.goto(url);
  return page;
}

export interface Served {
  url: string;
  process: ChildProcess;
}

/** A studio that runs in the system's temporary folder. */
export async function serve(...options: string[]): Promise<Served> {
  const server = spawn(PYTHON, ["-m", "nprdsl", "studio", ...options], { env: ENVIRONMENT, cwd: tmpdir() });
  const url = await new Promise<string>((resolve, reject) => {
    let said = "";
    server.stderr.on("data", (data) => (said += data));
    server.stdout.on("data", (data) => {
      said += data;
      const found = /ready: (\S+)/.exec(said);
      if (found) resolve(found[1]);
    });
    server.on("exit", () => reject(new Error(said)));
  });
  return { url, process: server };
}

/** The address of a page that `nprdsl show --html` makes; `text` may be an illegal trace. */
export function shown(text: string, ...options: string[]): string {
  const file = written("trace.txt", text);
  const html = `${file}.html`;
  try {
    execFileSync(PYTHON, ["-m", "nprdsl", "show", file, ...options, "--html", html], { env: ENVIRONMENT, stdio: "pipe" });
  } catch (error) {
    if (!existsSync(html)) throw error; // else the trace is not legal, which the page shows
  }
  return `file://${html}`;
}

/** The serious faults that axe finds; it comes by the debugger, as the page's policy lets nothing in. */
export async function seriousFaults(page: Page): Promise<string[]> {
  return page.evaluate(
    `${AXE}; axe.run({resultTypes: ["violations"]}).then(r => r.violations.filter(v => ["serious", "critical"].includes(v.impact)).map(v => v.id + ": " + v.nodes[0].html))`,
  );
}

/** Writes what the page shows as WebP, where pictures are asked for: `PICTURES=docs/studio`. */
export async function picture(page: Page, name: string): Promise<void> {
  if (!PICTURES) return;
  const png = (await page.screenshot({ animations: "disabled" })).toString("base64");
  const blank = await page.context().browser()!.newPage();
  const webp = await blank.evaluate(async (data) => {
    const image = new Image();
    image.src = `data:image/png;base64,${data}`;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
    canvas.getContext("2d")!.drawImage(image, 0, 0);
    return canvas.toDataURL("image/webp", 0.86).split(",")[1];
  }, png);
  await blank.close();
  mkdirSync(PICTURES, { recursive: true });
  writeFileSync(join(PICTURES, `${name}.webp`), Buffer.from(webp, "base64"));
}

/** A file in a folder of its own. */
export function written(name: string, text: string): string {
  const file = join(mkdtempSync(join(tmpdir(), "nprdsl-")), name);
  writeFileSync(file, text);
  return file;
}
