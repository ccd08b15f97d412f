import { defineConfig } from "vitest/config"

// One file of tests against one server: a second worker would only take time away from the server.
// The time a test may take is left at vitest's own default, which is the suite's clock.
export default defineConfig({
  test: {
    include: ["suite.test.ts"],
    pool: "threads",
    maxWorkers: 1,
    isolate: false,
    watch: false,
  },
})
