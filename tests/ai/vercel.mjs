// Uses the DefaultChatTransport of an AI SDK against a chat: node vercel.mjs PACKAGE URL. Prints what it has read.

import { read } from "./reading.mjs"

const [name, api] = process.argv.slice(2)
const { DefaultChatTransport, readUIMessageStream } = await import(name)

const COUNT = 30
const transport = (script) => new DefaultChatTransport({ api, body: { script } })
const messages = (id) => [{ id, role: "user", parts: [{ type: "text", text: "What is a stream?" }] }]

function send(chatId, script, { signal, id = "u1", trigger = "submit-message", messageId } = {}) {
  const options = { chatId, messages: messages(id), abortSignal: signal, trigger, messageId }
  return transport(script).sendMessages(options)
}

const reconnect = (chatId) => transport({}).reconnectToStream({ chatId })

async function whole(stream) {
  const [first, second] = stream.tee()
  const chunks = read(first)
  let message
  for await (message of readUIMessageStream({ stream: second })) continue
  return { chunks: await chunks, message }
}

async function disturbed(chatId) {
  const controller = new AbortController()
  await read(await send(chatId, { count: COUNT, seconds: 0.03 }, { signal: controller.signal }), 8)
  controller.abort()
  const resumed = await reconnect(chatId)
  if (resumed === null) throw new Error("there was nothing to resume")
  return { ...(await whole(resumed)), after: await reconnect(chatId) }
}

async function stopped(chatId) {
  const stream = await send(chatId, { count: 1000, seconds: 0.03 })
  const first = await read(stream, 8)
  const status = (await fetch(`${api}/${chatId}/stop`, { method: "POST" })).status
  return { status, chunks: [...first, ...(await read(stream))], after: await reconnect(chatId) }
}

async function failed(chatId) {
  return read(await send(chatId, { count: 2, fails: true }))
}

async function refused(chatId) {
  const controller = new AbortController()
  await read(await send(chatId, { count: 1000, seconds: 0.03 }, { signal: controller.signal }), 3)
  controller.abort()
  try {
    await send(chatId, {}, { id: "u2" })
    return "not refused"
  } catch (error) {
    return error.message
  } finally {
    await fetch(`${api}/${chatId}/stop`, { method: "POST" })
  }
}

async function regenerated(chatId) {
  const first = await whole(await send(chatId, { count: 1 }))
  const again = await whole(
    await send(chatId, { count: 2 }, { trigger: "regenerate-message", messageId: first.message.id })
  )
  const stored = await (await fetch(`${api}/${chatId}/messages`)).json()
  return { first, again, stored: stored.messages }
}

async function repeated(chatId) {
  const first = await read(await send(chatId, { count: 3 }))
  return { first, second: await read(await send(chatId, { count: 3 })) }
}

const before = await reconnect(`${name}-nothing`)
const undisturbed = await whole(await send(`${name}-1`, { count: COUNT }))
const scenarios = { disturbed, stopped, failed, refused, regenerated, repeated }
const results = { before, undisturbed }
for (const [key, scenario] of Object.entries(scenarios)) results[key] = await scenario(`${name}-${key}`)
console.log(JSON.stringify(results))
