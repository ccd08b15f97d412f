// Uses @durable-streams/aisdk-transport against a chat: node transport.mjs URL. Prints what it has read.

import { createDurableChatTransport } from "@durable-streams/aisdk-transport"

import { read } from "./reading.mjs"

const [api] = process.argv.slice(2)
const COUNT = 30
const transport = createDurableChatTransport({ api })
const messages = [{ id: "u1", role: "user", parts: [{ type: "text", text: "What is a stream?" }] }]

const send = (chatId, script, abortSignal) =>
  transport.sendMessages({ chatId, messages, trigger: "submit-message", abortSignal, body: { script } })

async function disturbed(chatId) {
  const controller = new AbortController()
  await read(await send(chatId, { count: COUNT, seconds: 0.03 }, controller.signal), 8)
  controller.abort()
  const resumed = await transport.reconnectToStream({ chatId })
  return { chunks: await read(resumed), after: await transport.reconnectToStream({ chatId }) }
}

const undisturbed = await read(await send("transport-1", { count: COUNT }))
console.log(JSON.stringify({ undisturbed, disturbed: await disturbed("transport-2") }))
process.exit(0)
