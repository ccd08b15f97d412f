// Follows the stream of a chat, and notices when nothing arrives although something should.

import { follow } from "../durable_streams/follow.js";

const SILENCE = 1500;
// Longer than LONG_POLL_TIMEOUT. A network that has gone silent closes nothing.
const LONGEST_WAIT = 45_000;

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Reads by long-poll. For servers that have no Server-Sent Events, which is Django under WSGI. */
async function poll(url, { onmessage, onerror }) {
  for (let offset = "-1", live = ""; ; live = "&live=long-poll") {
    const response = await fetch(`${url}?offset=${offset}${live}`, {
      cache: "no-store",
      signal: AbortSignal.timeout(LONGEST_WAIT),
    }).catch(() => null);
    if (response?.ok) {
      const messages = response.status === 204 ? [] : await response.json();
      offset = response.headers.get("Stream-Next-Offset");
      for (const message of messages) onmessage(message, offset);
    } else if (response && response.status < 500) return onerror(response.status);
    else await pause(1000);
  }
}

/**
 * Reads a stream from its start.
 *
 * `on.event(event)`: the next event of the chat. `on.refused(status)`: the server refuses, and the reader has ended.
 * `on.server(isThere)`: asked while `on.isExpecting()` and nothing comes. False: the server does not answer.
 */
export function read(url, health, on) {
  let offset = "-1";
  let heard = Date.now();
  let controller;
  let isThere = true;

  const onmessage = (event, next) => {
    heard = Date.now();
    offset = next;
    if (!isThere) on.server((isThere = true));
    on.event(event);
  };
  const refused = (status) => {
    clearInterval(asking);
    on.refused(status);
  };
  const start = () => {
    controller?.abort();
    controller = new AbortController();
    const onerror = (status) => (status === 501 ? poll(url, { onmessage, onerror: refused }) : refused(status));
    follow(url, { offset, signal: controller.signal, onmessage, onerror });
  };

  const ask = async () => {
    if (document.hidden || !on.isExpecting() || Date.now() - heard < SILENCE) return;
    const answers = await fetch(health, { cache: "no-store" }).then(({ ok }) => ok, () => false);
    if (answers === isThere) return;
    isThere = answers;
    on.server(isThere);
    if (isThere) start(); // now, and not when the next attempt is due
  };

  start();
  const asking = setInterval(ask, 1000);
}
