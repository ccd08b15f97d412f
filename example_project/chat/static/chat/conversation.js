// The messages of a chat, made from the events of its stream: the same events always make the same messages.

const textOf = (parts = []) => parts.map((part) => part.text ?? "").join("");

export class Conversation {
  /** `{id, role, text, status, error, continued}`; status is done, streaming, stopped or failed. */
  messages = [];
  #answer = null;

  get last() {
    return this.messages.at(-1);
  }

  get isStreaming() {
    return this.#answer !== null;
  }

  add(event) {
    switch (event.type) {
      case "message":
        return this.#put({ id: event.id, role: event.role ?? "user", text: textOf(event.parts), status: "done" });
      case "rewind":
        return this.#rewind(event);
      case "start":
        this.#answer = this.#put({ id: event.message, role: "assistant", text: "", status: "streaming" });
        return;
      case "text":
        if (this.#answer) this.#answer.text += event.text;
        return;
      case "data":
        if (this.#answer && event.name === "continued") this.#answer.continued = event.data.after;
        return;
      case "finish":
        return this.#end("done");
      case "stopped":
        return this.#end("stopped");
      case "failed":
        return this.#end("failed", event.error ?? "The answer failed.");
    }
  }

  #put(message) {
    const earlier = this.messages.find(({ id }) => id === message.id);
    if (earlier) return Object.assign(earlier, message);
    this.messages.push(message);
    return message;
  }

  #rewind({ before, after }) {
    const index = this.messages.findIndex(({ id }) => id === (before || after));
    if (index >= 0) this.messages.length = before ? index : index + 1;
  }

  #end(status, error = "") {
    if (this.#answer) Object.assign(this.#answer, { status, error });
    this.#answer = null;
  }
}
