// The studio in a browser, as a newcomer meets it: a mistake and its fix, runs, traces of files, the
// keyboard alone, a small window, an end.
import { tmpdir } from "node:os";
import { relative } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CHROMIUM, PATIENCE, launch, open, picture, seriousFaults, serve, written, type Served } from "./chromium";

const HOSTILE = '</script><script>window.hit=1</script><img src=x onerror="window.hit=1">';
const said = (sum: string) => `<guideline><plan>1:1+2</plan></guideline><step>1:1+2=${sum}</step><takeaway>3</takeaway>3`;
const ROWS = [
  { index: 0, text: said("3"), finish: "completed", usage: { tokens: 9 } },
  { index: 1, text: said("4"), finish: "completed", usage: { tokens: 9 } },
  { index: 2, text: said(HOSTILE), answer: HOSTILE, finish: HOSTILE },
];

describe.skipIf(!CHROMIUM)("the studio", () => {
  let browser: Browser;
  let served: Served;
  beforeAll(async () => {
    const file = written("results.jsonl", `${ROWS.map((row) => JSON.stringify(row)).join("\n")}\n{broken`);
    [browser, served] = await Promise.all([launch(), serve("--traces", relative(tmpdir(), file))]);
  }, PATIENCE);
  afterAll(async () => {
    served?.process.kill();
    await browser?.close();
  });

  const fresh = async (options: Parameters<typeof open>[2] = {}, tab = "run") => {
    const page = await open(browser, served.url, options);
    await page.waitForSelector(".problems.fine");
    await page.click(`#tab-${tab}`);
    return page;
  };
  const done = async (page: Page & { errors: string[] }) => {
    expect(page.errors).toEqual([]);
    await page.close();
  };

  it("tells a mistake, mends it by a click, and shows the picture", async () => {
    const page = await fresh({}, "schema");
    await page.waitForSelector(".graph .stage.fork");
    await page.waitForSelector(".tables details"); // what other libraries lose of it comes last
    await picture(page, "schema");
    await page.click(".cm-content");
    await page.keyboard.press("Control+End");
    await page.keyboard.type("\nextra: TEXT");
    await page.waitForSelector("ul.problems .code");
    expect(await page.textContent("ul.problems .code")).toBe("unused-rule");
    expect(await seriousFaults(page)).toEqual([]);
    await picture(page, "fault");
    await page.click("ul.problems .second");
    await page.waitForSelector(".problems.fine");
    expect(await page.textContent(".cm-content")).not.toContain("extra");
    await page.waitForSelector(".panel:not(:has(> .stale)) .schema");
    await done(page);
  }, PATIENCE);

  it("completes a name, says what it means, and goes to its definition", async () => {
    const page = await fresh({}, "schema");
    await page.waitForSelector(".graph");
    await page.click(".cm-content");
    await page.keyboard.press("Control+End");
    await page.keyboard.type("\nextra: pl");
    await page.keyboard.press("Control+Space");
    await page.waitForSelector(".cm-tooltip-autocomplete [aria-selected]");
    await page.waitForTimeout(200); // CodeMirror takes no key for a choice before
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector(".cm-content")!.textContent!.endsWith("extra: plan"));
    await page.waitForSelector("ul.problems");
    expect(await page.textContent(".stale")).toBe("as it was before the fault");
    await page.keyboard.press("F12");
    await page.waitForFunction(() => getSelection()!.toString() === "plan");
    expect(await page.evaluate(() => getSelection()!.anchorNode!.parentElement!.closest(".cm-line")!.textContent)).toMatch(/^plan: +"<plan>"/);
    await page.hover(".cm-line:last-child .cm-definition");
    expect(await page.textContent(".cm-told")).toContain("extra: plan");
    await done(page);
  }, PATIENCE);

  it("runs the bundled model: three lanes grow and join, in two tabs at once", async () => {
    const pages = await Promise.all([fresh(), fresh()]);
    const grown = pages.map(async (page) => {
      await page.waitForFunction(() => {
        const branches = [...document.querySelectorAll(".branch")];
        return branches.length === 3 && branches.every((branch) => /[1-9]\d tokens/.test(branch.textContent ?? ""));
      });
      await picture(page, "run");
    });
    for (const page of pages) await page.click(".ask .main");
    await Promise.all(grown);
    for (const page of pages) {
      await page.waitForSelector(".figure.answer");
      expect(await page.textContent(".figure.answer b")).toBe("\\boxed{4549}");
      expect(await page.locator("#panel-run .bar").count()).toBe(5);
      await page.hover("#panel-run [data-piece='60']");
      expect(await page.textContent("#panel-run .inspector dl")).toContain("step 1");
      await picture(page, "trace");
      await done(page);
    }
  }, 2 * PATIENCE);

  it("runs a prompt both ways, and shows the two beside each other", async () => {
    const page = await fresh();
    await page.click("text=Both ways");
    await page.waitForSelector(".comparison");
    const rows = await page.locator(".compared-figures tbody tr").allTextContents();
    expect(rows.map((row) => /side by side|in turn/.exec(row)?.[0])).toEqual(["side by side", "in turn"]);
    expect(await page.textContent(".compared-figures thead")).toContain("the same text");
    expect(await page.locator(".compared-lanes .bar").count()).toBe(10);
    expect(await seriousFaults(page)).toEqual([]);
    await picture(page, "both-ways");
    await done(page);
  }, 2 * PATIENCE);

  it("shows the traces of a file as text, and where two differ", async () => {
    const page = await fresh({}, "traces");
    await page.waitForSelector(".trace-list .where");
    expect(await page.textContent(".traces-head .status")).toContain("3 traces, and 1 that hold none");
    await page.click("text=index 2");
    await page.waitForSelector(".figure.answer >> text=window.hit");
    expect(await page.evaluate(() => [(window as { hit?: number }).hit, document.images.length])).toEqual([undefined, 0]);
    await page.click("text=index 0");
    await page.click("[aria-label='Compare with index 1']");
    await page.waitForSelector(".piece.differs");
    expect(await page.locator(".piece.differs").allTextContents()).toEqual([":1+2=3", ":1+2=4"]);
    await page.fill("[type='search']", "nothing like it");
    expect(await page.locator(".trace-list li").count()).toBe(0);
    await done(page);
  }, PATIENCE);

  it("is used with the keyboard alone, at 360 pixels, in the dark", async () => {
    const page = await open(browser, served.url, { colorScheme: "dark", viewport: { width: 360, height: 740 } });
    await page.waitForSelector(".problems.fine");
    const reach = async (selector: string) => {
      for (let presses = 0; presses < 60; presses++) {
        if (await page.evaluate((wanted) => document.activeElement?.matches(wanted), selector)) return;
        await page.keyboard.press("Escape"); // leaves the editor, where Tab indents
        await page.keyboard.press("Tab");
      }
      throw new Error(`${selector} is not reached by Tab`);
    };
    await reach("#tab-run");
    await page.keyboard.press("Enter");
    await reach(".ask textarea");
    await page.keyboard.press("Control+Enter");
    await page.waitForSelector("#panel-run .figure.answer");
    await reach("#panel-run .bar");
    await page.keyboard.press("ArrowRight");
    await page.waitForSelector("#panel-run .bar.chosen");
    await reach("#panel-run .text-list");
    await page.keyboard.press("End");
    await page.waitForSelector("#panel-run .piece.current", { state: "attached" }); // the last one has no text
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(360);
    expect(await seriousFaults(page)).toEqual([]);
    await done(page);
  }, 2 * PATIENCE);

  it("stops a run, and says so where the server is gone", async () => {
    const page = await fresh();
    const stopped = page.waitForFunction(() => {
      const stop = document.querySelector<HTMLElement>(".ask .stop");
      if (!stop || !document.querySelector("#panel-run .bar")) return false;
      stop.click();
      return true;
    });
    await page.click(".ask .main");
    await stopped;
    await page.waitForSelector(".refused");
    expect(await page.textContent(".refused")).toBe("stopped");
    await page.click(".ask .main:not(.stop)");
    served.process.kill("SIGKILL");
    await page.waitForFunction(() => document.querySelector(".refused")?.textContent?.includes("does not answer"));
    await page.close();
  }, 2 * PATIENCE);
});
