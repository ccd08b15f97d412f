// A simulated language model: a text appended token by token, each token a request of its own.
//
// The producer headers number the requests, so a token that is sent twice (a retry after a lost reply,
// or after a reload) is stored once, and one that overtakes another is refused. The next
// number is in the session storage, so an answer continues after a reload.

import { append, isJson, Refused } from "./wire.js";

const KEY = "durable-streams-demo:answer";
const ATTEMPTS = 6;

const TEXT = `A durable stream keeps every token it was given. This answer is written one token at a time: \
each is a request of its own, numbered by its producer, so that a retry is stored once and in its place. \
Reload the page in the middle of this sentence, or open it in a second tab, and you read the beginning again \
and then the rest as it arrives. Nothing was kept in the page. The stream is the memory, and everyone who has \
its address reads the same words.\n`;

// A token includes the space at its end, which is stored, too.
export const TOKENS = TEXT.split(/(?<=\s)/);

export const tokenBody = (contentType, token) => (isJson(contentType) ? JSON.stringify({ token }) : token);

export const newProducer = () => ({
  id: `answer-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`,
  epoch: 0,
  seq: 0,
});

/** The answer that a reload interrupted on this stream, if there is one. */
export function interrupted(path) {
  const saved = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
  return saved?.path === path ? saved.producer : null;
}

export const forget = () => sessionStorage.removeItem(KEY);

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function appendWithRetries(url, contentType, body, producer) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await append(url, contentType, body, producer);
    } catch (error) {
      const passing = !(error instanceof Refused) || error.passing;
      if (!passing || attempt === ATTEMPTS) throw error;
      await pause(250 * 2 ** attempt);
    }
  }
}

/** Appends the tokens from `producer.seq` on, in order, until all are stored or `signal` aborts. */
export async function answer({ path, url, contentType, producer, signal, onToken }) {
  for (let seq = producer.seq; seq < TOKENS.length && !signal.aborted; seq += 1) {
    const numbered = { ...producer, seq };
    // Saved before the request: after a reload this token is sent again, and at most one copy is stored.
    sessionStorage.setItem(KEY, JSON.stringify({ path, producer: numbered }));
    onToken(numbered);
    await appendWithRetries(url, contentType, tokenBody(contentType, TOKENS[seq]), numbered);
    await pause(30 + Math.random() * 70);
  }
  // If the page has changed to another stream, the answer can continue later.
  if (!signal.aborted) forget();
}
