// Runs the script of a page with a browser that is not there, and prints what it has done.
// Its input: {script, statuses: of other requests, 0 where the server cannot be reached, events: what the sources send}.
import { readFileSync } from "node:fs";
import vm from "node:vm";

const { script, statuses, events } = JSON.parse(readFileSync(0, "utf8"));
const done = { sources: [], asked: [], reloads: 0, shown: [], notes: [] };
const timers = [];

class EventSource {
  static CLOSED = 2;
  constructor(url) {
    done.sources.push(url);
    this.listeners = {};
    this.readyState = 0;
    queueMicrotask(() => this.run(events[done.sources.length - 1] ?? [["error"]]));
  }
  addEventListener(kind, listener) {
    this.listeners[kind] = listener;
  }
  close() {
    this.readyState = EventSource.CLOSED;
  }
  run(sent) {
    for (const [kind, data] of sent) {
      if (this.readyState === EventSource.CLOSED) return;
      this.listeners[kind]?.({ data: data === undefined ? undefined : JSON.stringify(data) });
    }
  }
}

const list = {
  append: (item) => done.notes.push(item.textContent),
  after: (text) => done.shown.push(text),
};

vm.runInNewContext(script, {
  EventSource,
  document: { getElementById: () => list, createElement: () => ({}) },
  setTimeout: (run) => timers.push(run),
  location: { reload: () => done.reloads++ },
  fetch: async (url) => {
    const status = statuses[done.asked.push(url) - 1] ?? 200;
    if (status === 0) throw new TypeError("Failed to fetch");
    return { status };
  },
});

for (let turn = 0; turn < 50 && done.sources.length < 20; turn++) {
  await new Promise((resolve) => setImmediate(resolve));
  timers.shift()?.();
}
process.stdout.write(JSON.stringify(done));
