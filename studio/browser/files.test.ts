// Pages that are files, in a browser: a hostile trace, one of 32,000 tokens, small windows, and axe's
// rules.
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CHROMIUM, PATIENCE, launch, open, picture, seriousFaults, shown } from "./chromium";
import { longTrace } from "./samples";

describe.skipIf(!CHROMIUM)("a page that is a file", () => {
  let browser: Browser;
  beforeAll(async () => void (browser = await launch()), PATIENCE);
  afterAll(() => browser?.close());

  it("shows what a hostile trace wrote as text, and runs none of it", async () => {
    const hostile = longTrace(100).replace("That is all.", '</script><script>window.hit=1</script><img src=x onerror="window.hit=1">');
    const page = await open(browser, shown(hostile, "--schema", "npr"));
    await page.click(".text-list");
    await page.keyboard.press("End");
    await page.waitForFunction(() => document.querySelector(".piece.current")?.textContent?.includes("window.hit=1"));
    expect(await page.evaluate(() => [(window as { hit?: number }).hit, document.images.length])).toEqual([undefined, 0]);
    expect(page.errors).toEqual([]);
    await page.close();
  }, PATIENCE);

  it("draws and scrolls 32,000 words with a few rows", async () => {
    const page = await open(browser, shown(longTrace(32_000), "--schema", "npr"), { colorScheme: "dark" });
    await page.waitForSelector(".row");
    const told = await page.evaluate(async () => {
      const list = document.querySelector(".text-list")!;
      let most = 0;
      for (let step = 0; step <= 20; step++) {
        list.scrollTop = (list.scrollHeight * step) / 20;
        await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
        most = Math.max(most, document.querySelectorAll(".row").length);
      }
      return { most, height: list.scrollHeight, last: [...document.querySelectorAll(".row")].at(-1)!.textContent };
    });
    expect(told.last).toBe("That is all.");
    expect(told.height).toBeGreaterThan(20_000);
    expect(told.most).toBeLessThan(120);
    await page.click('[data-segment="6"]');
    await page.waitForSelector(".row.chosen");
    await page.hover(".mask canvas");
    await page.waitForSelector(".piece.current, .inspector");
    await picture(page, "long-trace");
    expect(page.errors).toEqual([]);
    await page.close();
  }, PATIENCE);

  it.each([
    ["light", 1280],
    ["dark", 360],
  ] as const)("has no serious fault for axe, and fits: %s, %i pixels", async (colorScheme, width) => {
    const page = await open(browser, shown(longTrace(300), "--schema", "npr"), { colorScheme, viewport: { width, height: 800 } });
    await page.waitForSelector(".row");
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
    expect(await seriousFaults(page)).toEqual([]);
    await page.close();
  }, PATIENCE);
});
