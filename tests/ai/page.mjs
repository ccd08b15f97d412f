// Runs the page of docs/ai.md against a chat: node page.mjs PACKAGE ORIGIN FILE SCENARIO... The file has the page's code.
// Prints words as it goes on, and at last what the page shows, by the scenario.

import { readFileSync } from "node:fs"

import { resumingFetch } from "../../django_durable_streams/static/durable_streams/resuming-fetch.js"
import { hook, textOf, until } from "./state.mjs"

const [name, origin, file, ...chosen] = process.argv.slice(2)
const sdk = await import(name)
globalThis.modules = { "@ai-sdk/react": { useChat: hook(sdk) }, ai: sdk, "./resuming-fetch.js": { resumingFetch } }

const plain = globalThis.fetch
globalThis.fetch = async (...request) => {
  try {
    return await plain(...request)
  } catch (error) {
    console.log("refused")
    throw error
  }
}

const code = readFileSync(file, "utf-8")
  .replace(/^import (\{.*\}) from (".*")$/gm, "const $1 = globalThis.modules[$2]")
  .replace('"/api/chat"', `"${origin}/api/chat"`)
const { loadChat, useTeaChat } = await import(`data:text/javascript,${encodeURIComponent(code)}`)

const SCRIPT = { count: 30, seconds: 0.03, on_lost: "continue" }
const open = async (id) => useTeaChat(await loadChat(id), "token")
const shown = ({ messages, status }) => ({ status, messages: messages.map((one) => [one.role, one.id, textOf(one)]) })
const kinds = ({ messages }) => messages.map((one) => one.parts.map((part) => part.type).filter((type) => type !== "step-start"))

async function began(id) {
  const chat = await open(id)
  const answered = chat.sendMessage({ text: "What is a stream?" }, { body: { script: SCRIPT } })
  await until(() => textOf(chat.messages[1]).includes("word8"))
  return { chat, answered }
}

async function reload(id) {
  const { chat, answered } = await began(id)
  const early = await loadChat(id)
  const again = await open(id)
  const at = shown(again)
  await again.resumed
  await answered
  const late = useTeaChat(early, "token") // the answer has ended between its requests
  await late.resumed
  const after = await open(id)
  await after.resumed
  return { at, pages: [chat, again, late, after].map(shown), kinds: [chat, after].map(kinds) }
}

async function killed(id) {
  const { chat, answered } = await began(id)
  console.log("reading")
  await answered
  const after = await open(id)
  await after.resumed
  return { pages: [chat, after].map(shown) }
}

/** The user leaves while the server is away, and while the answer comes. */
async function left(id) {
  const { chat, answered } = await began(id)
  await chat.stop()
  await answered
  return { pages: [shown(chat)], stored: (await loadChat(id)).answer !== "" }
}

const scenarios = { reload, killed, left }
const results = {}
for (const scenario of chosen) results[scenario] = await scenarios[scenario](`${name}-${scenario}`)
console.log(JSON.stringify(results))
