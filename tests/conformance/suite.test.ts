import { runConformanceTests } from "@durable-streams/server-conformance-tests"

const { CONFORMANCE_URL, CONFORMANCE_LONG_POLL_MS, CONFORMANCE_SUBSCRIPTIONS } = process.env

if (!CONFORMANCE_URL) {
  throw new Error("CONFORMANCE_URL is not set: it is the address of the server under test, without a path")
}

runConformanceTests({
  baseUrl: CONFORMANCE_URL,
  longPollTimeoutMs: Number(CONFORMANCE_LONG_POLL_MS ?? "500"),
  subscriptions: CONFORMANCE_SUBSCRIPTIONS === "1",
})
