// The studio in a browser, as a newcomer meets it: a mistake and its fix, a run, two tabs, an end.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CHROMIUM, PATIENCE, launch, open, serve, type Served } from "./chromium";

const PICTURES = process.env.PICTURES; // a folder to put pictures of the states into

async function picture(page: Page, name: string): Promise<void> {
  if (!PICTURES) return;
  mkdirSync(PICTURES, { recursive: true });
  await page.screenshot({ path: join(PICTURES, `${name}.png`) });
}

describe.skipIf(!CHROMIUM)("the studio", () => {
  let browser: Browser;
  let served: Served;
  beforeAll(async () => {
    [browser, served] = await Promise.all([launch(), serve()]);
  }, PATIENCE);
  afterAll(async () => {
    served?.process.kill();
    await browser?.close();
  });

  it("tells a mistake, mends it by a click, and shows the picture", async () => {
    const page = await open(browser, served.url);
    await page.waitForSelector(".graph .stage.fork");
    await page.click(".cm-content");
    await page.keyboard.press("Control+End");
    await page.keyboard.type("\nextra: TEXT");
    await page.waitForSelector("ul.problems .code");
    expect(await page.textContent("ul.problems .code")).toBe("unused-rule");
    await picture(page, "studio-fault");
    await page.click("ul.problems .second");
    await page.waitForSelector(".problems.fine");
    expect(await page.textContent(".cm-content")).not.toContain("extra");
    await page.waitForSelector("div:not(.stale) > .schema");
    expect(page.errors).toEqual([]);
    await page.close();
  }, PATIENCE);

  it("runs the bundled model: three lanes grow and join, in two tabs at once", async () => {
    const pages = await Promise.all([open(browser, served.url), open(browser, served.url)]);
    const grown = pages.map(async (page) => {
      await page.waitForFunction(() => document.querySelectorAll(".branch").length === 3);
      await picture(page, "studio-run");
    });
    for (const page of pages) {
      await page.waitForSelector(".problems.fine");
      await page.click("#tab-run");
      await page.click(".ask .main");
    }
    await Promise.all(grown);
    for (const page of pages) {
      await page.waitForSelector(".figure.answer");
      expect(await page.textContent(".figure.answer b")).toBe("\\boxed{4549}");
      expect(await page.locator(".bar").count()).toBe(5);
      await page.hover("[data-piece='60']");
      expect(await page.textContent(".inspector dl")).toContain("step 1");
      expect(page.errors).toEqual([]);
      await picture(page, "studio-trace");
      await page.close();
    }
  }, 2 * PATIENCE);

  it("stops a run, and says so where the server is gone", async () => {
    const own = await serve();
    const page = await open(browser, own.url);
    await page.waitForSelector(".problems.fine");
    await page.click("#tab-run");
    const stopped = page.waitForFunction(() => {
      const stop = document.querySelector<HTMLElement>(".ask .stop");
      if (!stop || !document.querySelector(".bar")) return false;
      stop.click();
      return true;
    });
    await page.click(".ask .main");
    await stopped;
    await page.waitForSelector(".refused");
    expect(await page.textContent(".refused")).toBe("stopped");
    await page.click(".ask .main:not(.stop)");
    own.process.kill("SIGKILL");
    await page.waitForFunction(() => document.querySelector(".refused")?.textContent?.includes("does not answer"));
    await page.close();
  }, 2 * PATIENCE);
});
