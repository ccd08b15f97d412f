// Posts bodies to fresh streams by Node's fetch, and deletes the streams.
// Arguments: address of the streams, bytes of a body, number of streams. Prints JSON: milliseconds of each request.

const [url, size, count] = process.argv.slice(2)
const headers = { "content-type": "application/octet-stream" }
const body = new Uint8Array(Number(size)).fill(42)
const times = { post: [], delete: [] }

async function timed(kind, stream, options) {
  const began = performance.now()
  const response = await fetch(stream, options)
  await response.arrayBuffer()
  const took = performance.now() - began
  if (!response.ok) throw new Error(`${kind}: ${response.status}`)
  if (kind in times) times[kind].push(took)
}

for (let number = -1; number < Number(count); number++) {
  const stream = `${url}/large/${process.pid}/${number}`
  await timed("create", stream, { method: "PUT", headers })
  await timed("post", stream, { method: "POST", headers, body })
  await timed("delete", stream, { method: "DELETE" })
  if (number < 0) for (const kind in times) times[kind] = [] // the first of each opens the connection
}

console.log(JSON.stringify(times))
