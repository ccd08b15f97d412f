// Uses @durable-streams/tanstack-ai-transport against a chat: node tanstack.mjs URL. Prints what it has read.

import {
  durableStreamConnection,
  materializeSnapshotFromDurableStream,
} from "@durable-streams/tanstack-ai-transport"

const [api] = process.argv.slice(2)
const chat = "tanstack-1"
const sendUrl = `${api}?id=${chat}`
const readUrl = `${api}/${chat}/stream`
const user = (id, text) => ({ id, role: "user", parts: [{ type: "text", content: text }] })

async function until(subscription, type, seen = []) {
  for await (const chunk of subscription) {
    seen.push(chunk)
    if (chunk.type === type) return seen
  }
  return seen
}

// One connection reads from before the first message, another one after a part of the answer.
const first = durableStreamConnection({ sendUrl, readUrl })
const controller = new AbortController()
const subscription = first.subscribe(controller.signal)[Symbol.asyncIterator]()
const empty = (await subscription.next()).value
await first.send([user("u1", "What is a stream?")], { script: { count: 30, seconds: 0.02 } })
const live = await until({ [Symbol.asyncIterator]: () => subscription }, "RUN_FINISHED")
controller.abort()

await first.send([user("u1", "What is a stream?"), user("u2", "Again?")], { script: { count: 30, seconds: 0.02 } })
const second = durableStreamConnection({ sendUrl, readUrl })
const late = await until(second.subscribe(), "RUN_FINISHED")
const { messages } = await materializeSnapshotFromDurableStream({ readUrl })

// Another answer to the last message, which was edited, while a page is there.
const third = durableStreamConnection({ sendUrl, readUrl })
const following = third.subscribe()[Symbol.asyncIterator]()
await following.next()
await third.send([user("u1", "What is a stream?"), user("u2", "Again, please?")], { script: { count: 2 } })
const again = await until({ [Symbol.asyncIterator]: () => following }, "RUN_FINISHED")
const { messages: renewed } = await materializeSnapshotFromDurableStream({ readUrl })

let refusal
try {
  await first.send([{ id: "u3" }])
} catch (error) {
  refusal = error.message
}
console.log(JSON.stringify({ empty, live, late, messages, again, renewed, refusal }))
process.exit(0)
