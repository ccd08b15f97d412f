import { runConformanceTests } from "@durable-streams/server-conformance-tests"

const { CONFORMANCE_URL, CONFORMANCE_LONG_POLL_MS, CONFORMANCE_SUBSCRIPTIONS } = process.env

if (!CONFORMANCE_URL) {
  throw new Error("CONFORMANCE_URL is not set: it is the address of the server under test, without a path")
}

// A test that computes for seconds keeps this process from seeing that the server has closed an idle connection. The next
// request would be sent on it, and fail.
const NOTICE_AFTER_MS = 2000
const NOTICE_MS = 100
const send = globalThis.fetch
let last = Date.now()
globalThis.fetch = async (...request) => {
  if (Date.now() - last > NOTICE_AFTER_MS) await new Promise((resolve) => setTimeout(resolve, NOTICE_MS))
  try {
    return await send(...request)
  } finally {
    last = Date.now()
  }
}

runConformanceTests({
  baseUrl: CONFORMANCE_URL,
  longPollTimeoutMs: Number(CONFORMANCE_LONG_POLL_MS ?? "500"),
  subscriptions: CONFORMANCE_SUBSCRIPTIONS === "1",
})
