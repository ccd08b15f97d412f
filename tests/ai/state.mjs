// What `useChat` does without React: the real chat of an AI SDK, with a state that is only a list.

/** Returns `useChat` of a package. Its chats have the methods of the hook's result. */
export function hook({ AbstractChat }) {
  class State {
    status = "ready"
    error = undefined
    constructor(messages) {
      this.messages = structuredClone(messages)
    }
    pushMessage = (message) => this.messages.push(structuredClone(message))
    popMessage = () => this.messages.pop()
    replaceMessage = (index, message) => (this.messages[index] = structuredClone(message))
    snapshot = structuredClone
  }
  class TestChat extends AbstractChat {
    constructor({ messages = [], ...options }) {
      super({ ...options, state: new State(messages) })
    }
  }
  return function useChat({ resume, ...options }) {
    const chat = new TestChat(options)
    chat.resumed = resume ? chat.resumeStream() : Promise.resolve()
    return chat
  }
}

export const textOf = (message) =>
  (message?.parts ?? []).map((part) => (part.type === "text" ? part.text : "")).join("")

/** Waits until a condition holds, and fails after 30 seconds. */
export async function until(condition) {
  for (const end = Date.now() + 30_000; !condition(); await new Promise((go) => setTimeout(go, 20)))
    if (Date.now() > end) throw new Error(`It never came: ${condition}`)
}
