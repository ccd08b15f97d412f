// Starts the protocol's reference server and stops it on SIGTERM.
// Arguments: port, then the directory of its file-backed store; without one it keeps everything in memory.

import { DurableStreamTestServer } from "@durable-streams/server"

const [port, dataDir] = process.argv.slice(2)
const server = new DurableStreamTestServer({
  host: "127.0.0.1",
  port: Number(port),
  ...(dataDir ? { dataDir } : {}),
})

process.on("SIGTERM", () => {
  server.stop().finally(() => process.exit(0))
})

await server.start()
