// Two programs, each one file of script and one of style: `viewer` stands inside pages that are files,
// `studio` is served by `nprdsl studio`. Built into the Python package.
import { defineConfig } from "vite";

export default defineConfig(({ mode }) => ({
  build: {
    outDir: "../nprdsl/studio/static",
    emptyOutDir: false,
    target: "es2022",
    lib: {
      entry: `src/${mode}.tsx`,
      formats: ["iife" as const],
      name: "nprdsl",
      fileName: () => `${mode}.js`,
      cssFileName: mode,
    },
  },
  define: { "process.env.NODE_ENV": '"production"' },
  test: { environment: "happy-dom", include: ["test/**/*.test.tsx"] },
}));
