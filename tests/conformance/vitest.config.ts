import { defineConfig } from "vitest/config"

// One file of tests against one server: a second worker would only take time away from the server.
// vitest's own limit for a test is five seconds. One test compares 100,000 bytes one by one, which takes longer on a slow
// machine, and meanwhile no other request of this process goes on.
export default defineConfig({
  test: {
    include: ["suite.test.ts"],
    pool: "threads",
    maxWorkers: 1,
    isolate: false,
    watch: false,
    testTimeout: 30_000,
  },
})
