// A live reader: server-sent events over fetch, from an offset, for as long as the stream is open.
//
// Why not EventSource: it reconnects to its first URL, and would read the stream from the start again. It
// also hides the status of a response that is not an event stream.

import { logEvent, loggedFetch } from "./log.js";
import { Refused } from "./wire.js";

// The server sends a comment after 15 quiet seconds. A network that has gone silent closes nothing.
const SILENCE = 45_000;
const AGAIN = 100;
const RETRY_FIRST = 500;
const RETRY_LONGEST = 8000;

/** Yields `{event, data}` for each server-sent event in a response body. */
async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  let event = "message";
  let data = [];
  while (true) {
    const silence = setTimeout(() => reader.cancel(), SILENCE);
    const { value, done } = await reader.read().finally(() => clearTimeout(silence));
    if (done) return;
    buffer += value;
    // A CR at the end may be half of a CRLF, so it waits for the next piece.
    const lines = buffer.split(/\r\n|\n|\r(?!$)/);
    buffer = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data.length) yield { event, data: data.join("\n") };
        event = "message";
        data = [];
        continue;
      }
      const [, field, text] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (field === "event") event = text;
      if (field === "data") data.push(text);
    }
  }
}

const pause = (milliseconds, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });

/**
 * Tails the stream at `url` from `offset` until it is closed, gone, or `signal` aborts.
 *
 * `on.state(name, error)`: connecting, live, reconnecting, closed, gone or failed.
 * `on.data(payload, base64)`: one data event. `on.control(control)`: the control event after it.
 */
export async function tail(url, offset, signal, on) {
  let retry = RETRY_FIRST;
  let cursor = "";
  on.state("connecting");
  while (!signal.aborted) {
    let wait = retry;
    try {
      const query = new URLSearchParams({ offset, live: "sse", ...(cursor ? { cursor } : {}) });
      const response = await loggedFetch(`${url}?${query}`, { signal, cache: "no-store" });
      if (!response.ok) throw await Refused.from(response);
      const base64 = response.headers.get("Stream-SSE-Data-Encoding") === "base64";
      on.state("live");
      for await (const { event, data } of serverSentEvents(response.body)) {
        if (signal.aborted) return;
        logEvent({ event, data });
        if (event === "data") on.data(data, base64);
        if (event !== "control") continue;
        const control = JSON.parse(data);
        offset = control.streamNextOffset;
        cursor = control.streamCursor ?? "";
        // The server ends each response after about a minute. The next request continues from this offset.
        wait = AGAIN;
        retry = RETRY_FIRST;
        on.control(control);
        if (control.streamClosed) return on.state("closed");
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && !error.passing) {
        const gone = error.status === 404 || error.status === 410;
        return on.state(gone ? "gone" : "failed", error);
      }
      wait = retry;
      retry = Math.min(retry * 2, RETRY_LONGEST);
    }
    if (signal.aborted) return;
    on.state("reconnecting");
    await pause(wait, signal);
  }
}
