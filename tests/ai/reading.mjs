// Reads the chunks of a transport of AI answers.

/** Returns all chunks of a stream, or the first ones. The stream can then be read on. */
export async function read(stream, count = Infinity) {
  const chunks = []
  const reader = stream.getReader()
  while (chunks.length < count) {
    const { done, value } = await reader.read()
    if (done) return chunks
    chunks.push(value)
  }
  reader.releaseLock()
  return chunks
}
