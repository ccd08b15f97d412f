// The log of the page: each request with the headers that matter, and each event of an open response.

const LONGEST = 100;
const SENT = ["content-type", "producer-id", "producer-epoch", "producer-seq", "stream-closed", "stream-ttl"];
const RECEIVED = [
  "stream-next-offset",
  "stream-up-to-date",
  "stream-cursor",
  "stream-closed",
  "producer-expected-seq",
  "content-type",
  "cache-control",
  "etag",
  "location",
];

const list = document.getElementById("log");

/** Makes the log longer, and shows its end again if the visitor has not scrolled back to read. */
function grow(change) {
  const following = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  change();
  if (following) list.scrollTop = list.scrollHeight;
}

function add(className, ...content) {
  const item = document.createElement("li");
  item.className = className;
  item.append(...content);
  grow(() => {
    list.append(item);
    if (list.childElementCount > LONGEST) list.firstElementChild.remove();
  });
  return item;
}

function headersOf(headers, names) {
  const shown = document.createElement("dl");
  for (const name of names) {
    if (!headers.has(name)) continue;
    const term = document.createElement("dt");
    const value = document.createElement("dd");
    term.textContent = name;
    value.textContent = headers.get(name);
    shown.append(term, value);
  }
  return shown;
}

function bold(text) {
  const made = document.createElement("b");
  made.textContent = text;
  return made;
}

/** `fetch`, with a line in the log. */
export async function loggedFetch(url, options = {}) {
  const { pathname, search } = new URL(url, location.href);
  const sent = headersOf(new Headers(options.headers), SENT);
  const item = add("request", bold(`${options.method ?? "GET"} ${pathname}${search}`), sent);
  try {
    const response = await fetch(url, options);
    item.classList.toggle("refused", !response.ok);
    const status = bold(`${response.status} ${response.statusText}`);
    grow(() => item.append(status, headersOf(response.headers, RECEIVED)));
    return response;
  } catch (error) {
    item.classList.add("refused");
    grow(() => item.append(bold(options.signal?.aborted ? "ended by this page" : "no response")));
    throw error;
  }
}

/** A line for an event of an open response. */
export function logEvent({ event, data }) {
  add("event", bold(`event: ${event}`), ` ${data.length > 300 ? `${data.slice(0, 300)}…` : data}`);
}

document.getElementById("clear-log").addEventListener("click", () => list.replaceChildren());
