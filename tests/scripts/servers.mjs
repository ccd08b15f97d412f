// Runs the scripts of the static files against answers of a server that is not there, on a clock of its own:
// node servers.mjs NAME, with {answers, seconds} on its input. An answer is {status, headers, chunks, cut, hang, beats}. The
// last one comes again and again. `beats` of 15 seconds follow its chunks, each with a comment, and then silence. Prints what was requested when, and what came of it.

import { readFileSync } from "node:fs"

const [name] = process.argv.slice(2)
const { answers, seconds, ...given } = JSON.parse(readFileSync(0, "utf8"))
const SCRIPTS = "../../django_durable_streams/static/durable_streams/"

// The clock

const real = { setTimeout, setImmediate }
const timers = new Map()
let now = 0, number = 0
globalThis.setTimeout = (call, wait) => {
  // As in browsers, where a time beyond 31 bits is no time at all.
  const at = now + (wait > 0 && wait < 2 ** 31 ? wait : 0)
  timers.set(++number, { at, call })
  return number
}
globalThis.clearTimeout = globalThis.clearInterval = (timer) => timers.delete(timer)
globalThis.setInterval = (call, wait) => {
  const own = setTimeout(() => {
    timers.set(own, { at: now + wait, call: timers.get(own)?.call ?? again })
    call()
  }, wait)
  const again = timers.get(own).call
  return own
}
const settle = async () => {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => real.setImmediate(resolve))
}
async function pass(milliseconds) {
  const until = now + milliseconds
  for (let turns = 0; turns < 2000; turns++) {
    await settle()
    const [next] = [...timers].sort(([, a], [, b]) => a.at - b.at)
    if (!next || next[1].at > until) break
    timers.delete(next[0])
    now = Math.max(now, next[1].at)
    next[1].call()
  }
  now = until
}

// The server

const BEAT = 15_000
const requests = []
globalThis.fetch = async (url, { signal } = {}) => {
  signal?.throwIfAborted()
  const { status = 200, headers = {}, chunks = [], cut, hang, beats = -1 } = answers[Math.min(requests.length, answers.length - 1)]
  requests.push(now)
  const aborted = new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)))
  aborted.catch(() => {})
  if (hang) return aborted
  if (status === 0) throw new TypeError("Failed to fetch")
  const rest = chunks.map((chunk) => Uint8Array.from(chunk))
  let left = beats
  const body = new ReadableStream({
    start(stream) {
      aborted.catch((error) => stream.error(error))
    },
    async pull(stream) {
      if (rest.length) return stream.enqueue(rest.shift())
      if (left > 0) {
        await new Promise((resolve) => setTimeout(resolve, BEAT))
        left--
        return stream.enqueue(new TextEncoder().encode(":\n\n"))
      }
      if (left === 0) return new Promise(() => {})
      if (cut) return stream.error(new TypeError("network error"))
      stream.close()
    },
  })
  const response = new Response(status === 204 ? null : body, { status, headers })
  Object.defineProperty(response, "url", { value: String(url) })
  return response
}

class Listeners {
  count = 0
  signal(controller) {
    const { signal } = controller
    const add = signal.addEventListener, remove = signal.removeEventListener
    signal.addEventListener = (...rest) => (this.count++, add.apply(signal, rest))
    signal.removeEventListener = (...rest) => (this.count--, remove.apply(signal, rest))
    return signal
  }
}

const done = { text: "", error: null, statuses: [] }
const RUN = {
  async resuming() {
    const { resumingFetch } = await import(`${SCRIPTS}resuming-fetch.js`)
    const listeners = new Listeners(), signal = listeners.signal(new AbortController())
    const read = async () => {
      const response = await resumingFetch("http://test/api/chat", { method: "POST", signal })
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
      for (let part; !(part = await reader.read()).done; ) {
        done.text += part.value
        if (done.text.length >= given.stop) return reader.cancel()
      }
    }
    read().catch((error) => (done.error = error.message)).finally(() => (done.over = true))
    await pass(seconds * 1000)
    done.listeners = listeners.count
  },
  async source() {
    globalThis.location = "http://test/"
    const made = (done.made = [])
    globalThis.EventSource = class extends EventTarget {
      readyState = 0
      constructor(url) {
        super()
        made.push([now, String(url)])
        queueMicrotask(() => (given.events ? this.#play() : this.#fail()))
      }
      close() {
        this.readyState = 2
      }
      #fail() {
        this.readyState = 2
        this.onerror()
      }
      /** Opens, and has an event at each of the given times. Then nothing comes. After "ended" the browser waits. */
      async #play() {
        this.readyState = 1
        this.onopen()
        for (const [at, type, data = ""] of given.events) {
          await new Promise((resolve) => setTimeout(resolve, at))
          if (this.readyState === 2) return
          if (type === "ended") {
            this.readyState = 0
            this.onerror()
            continue
          }
          const event = Object.assign(new Event(type), { data, lastEventId: `id-${at}` })
          this.dispatchEvent(event)
        }
      }
    }
    globalThis.MessageEvent = class extends Event {
      constructor(type, init) {
        super(type)
        Object.assign(this, init)
      }
    }
    const { ReconnectingEventSource } = await import(`${SCRIPTS}event-source.js`)
    const source = new ReconnectingEventSource("/events")
    source.addEventListener("mine", () => {})
    source.onerror = ({ status }) => status && done.statuses.push(status)
    await pass(seconds * 1000)
    source.close()
    await settle()
    done.readyState = source.readyState
  },
  async follow() {
    globalThis.location = "http://test/"
    globalThis.document = { hidden: false }
    Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true })
    globalThis.addEventListener = globalThis.removeEventListener = () => {}
    globalThis.BroadcastChannel = class {
      postMessage() {}
      close() {}
    }
    const { follow } = await import(`${SCRIPTS}follow.js`)
    const controller = new AbortController()
    follow("/v1/stream/a", { onmessage() {}, onerror: (status) => done.statuses.push(status), signal: controller.signal })
    await pass(seconds * 1000)
    controller.abort()
    await settle()
  },
}
await RUN[name]()
process.stdout.write(JSON.stringify({ ...done, requests, timers: timers.size }))
process.exit(0)
