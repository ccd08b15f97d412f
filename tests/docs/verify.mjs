// Runs the JavaScript of a page: reads {source, cases} as JSON, and prints what it says of each case.
import { writeFileSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

const chunks = []
for await (const chunk of process.stdin) chunks.push(chunk)
const { source, cases } = JSON.parse(Buffer.concat(chunks).toString())
const folder = mkdtempSync(join(tmpdir(), "durable-streams-"))
try {
  const file = join(folder, "receiver.mjs")
  writeFileSync(file, source)
  const { isSigned } = await import(pathToFileURL(file).href)
  const results = []
  for (const { body, header } of cases) results.push(await isSigned(Buffer.from(body, "base64"), header))
  console.log(JSON.stringify(results))
} finally {
  rmSync(folder, { recursive: true })
}
