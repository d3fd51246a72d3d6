// Tests in a real browser: `npm run browser`, from a checkout with its environment in `.venv`. Files
// run side by side: one waits for the studio's model while the other opens pages.
import { defineConfig } from "vitest/config";
import { CHROMIUM } from "./browser/chromium.ts";

if (!CHROMIUM) console.log("there is no Chromium: no test in a browser");

export default defineConfig({
  test: { environment: "node", include: ["browser/**/*.test.ts"], hookTimeout: 300_000 },
});
