// Tests in a real browser: `npm run browser`, from a checkout with its environment in `.venv`.
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { environment: "node", include: ["browser/**/*.test.ts"], fileParallelism: false, hookTimeout: 120_000 },
});
