// The page: the actions of the visitor, the responses of the stream, and a curl line for each.
//
// The page stores no content. The address bar names the stream. After each load, the page reads the
// stream from its start.

import { answer, forget, interrupted, newProducer, TOKENS, tokenBody } from "./answer.js";
import { curl } from "./curl.js";
import { tail } from "./tail.js";
import * as wire from "./wire.js";

const LAST_STREAM = "durable-streams-demo:last";

const CONNECTION = {
  none: "No stream yet",
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  paused: "Paused",
  closed: "At the end",
  gone: "No such stream",
  failed: "Refused",
};

const element = (id) => document.getElementById(id);
const live = element("live");
const output = element("output");
const form = element("create-form");
const text = element("append-text");

/** The stream that the page shows; null before there is one. */
let stream = null;
/** Ends the live reader of that stream. */
let reader = null;
/** Ends the simulated answer while one is being written. */
let answering = null;
/** The request in the curl line of the simulated answer: the next one, or the last one sent. */
let producer = newProducer();

// Streams of the other pages of the example. What this page appended to them would be no message that those can read.
const isNeeded = (path) => ["board/", "chats/", "presence/"].some((prefix) => path.startsWith(prefix));
const streamUrl = (path) => new URL(document.body.dataset.streamBase + path, location.href).href;
const randomPath = () => `demo/${crypto.getRandomValues(new Uint32Array(1))[0].toString(36).slice(-6)}`;

// Display

function span(content) {
  const made = document.createElement("span");
  made.textContent = content;
  return made;
}

function show(id, kind, title, detail = "") {
  const notice = element(id);
  notice.hidden = false;
  notice.dataset.kind = kind;
  const head = document.createElement("b");
  head.textContent = title;
  notice.replaceChildren(head, " ", span(detail));
}

function showError(id, error) {
  if (error instanceof wire.Refused) return show(id, "error", `${error.status} ${error.message}`, error.detail);
  return show(id, "error", "No answer", "The server could not be reached.");
}

function hideNotices() {
  for (const notice of document.querySelectorAll("main .notice[id]")) notice.hidden = true;
}

function setConnection(state) {
  live.dataset.state = state;
  element("connection").textContent = CONNECTION[state];
  render();
}

function formStream() {
  return { path: form.path.value.trim(), contentType: form.contentType.value, ttl: form.ttl.value };
}

function stopAnswer() {
  answering?.abort();
  answering = null;
  producer = newProducer();
  element("answer-progress").textContent = "Not started";
  element("answer-bar").value = 0;
}

function render() {
  const state = live.dataset.state;
  const needed = stream !== null && isNeeded(stream.path);
  const open = stream !== null && !stream.closed;
  const writable = open && !needed;
  element("live-path").textContent = stream?.path ?? "–";
  element("offset").textContent = stream?.offset || "–";
  element("stream-state").textContent = stream ? (stream.closed ? "closed" : "open") : "–";
  element("stream-state").dataset.value = element("stream-state").textContent;
  // The next step is highlighted: create a stream, and then append to it.
  element("create").classList.toggle("primary", !open);
  element("append").disabled = !writable;
  element("simulate").disabled = !writable && answering === null;
  element("simulate").textContent = answering ? "Stop" : "Simulate";
  element("needed").hidden = !needed;
  element("close").disabled = !writable || answering !== null;
  element("delete").disabled = stream === null || needed;
  element("pause").disabled = stream === null || state === "closed";
  element("pause").textContent = ["paused", "failed"].includes(state) ? "Resume" : "Pause";
  element("second-tab").hidden = stream === null;
  element("second-tab").href = stream ? `#${stream.path}` : "#";
  element("empty").hidden = output.hasChildNodes();
  element("empty").textContent = stream
    ? "The stream is empty. Append to it here, or from a terminal."
    : "Create a stream to see its content here as it is appended.";
  renderAppendForm();
  renderCurl();
}

const contentType = () => stream?.contentType ?? formStream().contentType;
const appendBody = () =>
  wire.isJson(contentType()) || !element("append-newline").checked ? text.value : `${text.value}\n`;

// A hint only: invalid JSON is sent, too, and the page shows the server's error.
function renderAppendForm() {
  const json = wire.isJson(contentType());
  element("append-label").textContent = json ? "JSON message" : "Text";
  element("newline-field").hidden = json;
  let problem = "";
  if (json) {
    try {
      JSON.parse(text.value);
    } catch {
      problem = "This is not valid JSON. Append it anyway to see how the server refuses it.";
    }
  }
  element("append-hint").textContent = problem;
  element("append-hint").hidden = !problem;
  text.setAttribute("aria-invalid", String(Boolean(problem)));
}

function renderCurl() {
  const made = formStream();
  const url = streamUrl(stream?.path ?? made.path);
  const type = contentType();
  const lines = {
    create: curl(streamUrl(made.path), { method: "PUT", headers: wire.createHeaders(made) }),
    append: curl(url, { method: "POST", headers: wire.appendHeaders(type), body: appendBody() }),
    answer: curl(url, {
      method: "POST",
      headers: wire.appendHeaders(type, producer),
      body: tokenBody(type, TOKENS[producer.seq]),
    }),
    close: curl(url, { method: "POST", headers: wire.CLOSE_HEADERS }),
    delete: curl(url, { method: "DELETE" }),
    sse: curl(`${url}?offset=-1&live=sse`, { flags: "-N" }),
    "long-poll": curl(`${url}?offset=${stream?.offset || "-1"}&live=long-poll`),
    read: curl(`${url}?offset=-1`),
    head: curl(url, { flags: "-I" }),
  };
  for (const [name, words] of Object.entries(lines)) {
    const spaced = words.flatMap((word, index) => (index ? [" ", span(word)] : [span(word)]));
    element(`curl-${name}`).replaceChildren(...spaced);
  }
}

// The live tail

function addChunk(content, className) {
  // Follow the end, unless the visitor has scrolled back to read.
  const following = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
  const chunk = document.createElement(className === "message" ? "div" : "span");
  chunk.className = className;
  chunk.textContent = content;
  output.append(chunk);
  element("empty").hidden = true;
  if (following) output.scrollTop = output.scrollHeight;
}

function showData(payload, base64) {
  if (base64) return addChunk(`${atob(payload.replace(/\s/g, "")).length} bytes`, "message");
  if (!wire.isJson(stream.contentType)) return addChunk(payload, "text");
  for (const message of JSON.parse(payload)) addChunk(JSON.stringify(message), "message");
}

function follow(offset) {
  reader?.abort();
  reader = new AbortController();
  tail(streamUrl(stream.path), offset, reader.signal, {
    data: showData,
    control(control) {
      stream.offset = control.streamNextOffset;
      stream.closed = control.streamClosed === true;
      render();
    },
    state(name, error) {
      if (name === "gone") return leave("gone");
      if (error) showError("live-result", error);
      setConnection(name);
    },
  });
}

/** Makes `path` the stream of this page and reads it from the start. */
function attach(path, { contentType, offset, closed }) {
  stream = { path, contentType, offset, closed };
  output.replaceChildren();
  if (location.hash.slice(1) !== path) history.pushState(null, "", `#${path}`);
  localStorage.setItem(LAST_STREAM, path);
  document.title = `${path} · Durable Streams`;
  const json = wire.isJson(contentType);
  if (json !== text.value.startsWith("{")) text.value = json ? '{"hello": "stream"}' : "Hello, stream";
  follow("-1");
}

/** Leaves the stream. Its data stays on the screen. */
function leave(state) {
  reader?.abort();
  stopAnswer();
  if (stream && localStorage.getItem(LAST_STREAM) === stream.path) localStorage.removeItem(LAST_STREAM);
  stream = null;
  history.replaceState(null, "", location.pathname);
  document.title = "Durable Streams for Django";
  setConnection(state);
}

/** Reads the stream that the address or the last visit names, if it is still there. */
async function resume(path) {
  if (!wire.isStreamPath(path) || path === stream?.path) return;
  hideNotices();
  stopAnswer();
  setConnection("connecting");
  try {
    const found = await wire.describe(streamUrl(path));
    form.path.value = path;
    if (wire.isJson(found.contentType)) form.contentType.value = "application/json";
    attach(path, found);
    const left = interrupted(path);
    if (left && !found.closed) simulate(left);
  } catch (error) {
    if (error.status === 404 || error.status === 410) {
      form.path.value = path;
      localStorage.removeItem(LAST_STREAM);
      leave("gone");
      show("create-result", "plain", "Not there", "There is no stream at this path. Create one, or check the address.");
    } else {
      setConnection("failed");
      showError("create-result", error);
    }
  }
}

// Actions of the visitor

async function submitCreate(event) {
  event.preventDefault();
  hideNotices();
  const made = formStream();
  if (!wire.isStreamPath(made.path)) {
    form.path.focus();
    return show("create-result", "error", "Not a path", "Use letters, digits, . _ ~ - and slashes between them.");
  }
  if (!form.ttl.checkValidity()) {
    form.ttl.focus();
    return show("create-result", "error", "Not a TTL", "Use a whole number of seconds, or leave it empty.");
  }
  try {
    const created = await wire.create(streamUrl(made.path), made);
    stopAnswer();
    attach(made.path, created);
    const fresh = created.status === 201;
    show(
      "create-result",
      "done",
      fresh ? "201 Created" : "200 OK",
      fresh ? "The address of this page now names it." : "It existed already. Creates are idempotent.",
    );
  } catch (error) {
    showError("create-result", error);
  }
}

async function submitAppend(event) {
  event.preventDefault();
  hideNotices();
  try {
    const { status, offset } = await wire.append(streamUrl(stream.path), stream.contentType, appendBody());
    show("append-result", "done", `${status} Stored`, `The stream now ends at ${offset}.`);
    text.select();
  } catch (error) {
    showError("append-result", error);
  }
}

async function simulate(from) {
  if (answering) {
    forget();
    return answering.abort();
  }
  hideNotices();
  producer = from;
  answering = new AbortController();
  const { signal } = answering;
  const progress = element("answer-progress");
  render();
  try {
    await answer({
      path: stream.path,
      url: streamUrl(stream.path),
      contentType: stream.contentType,
      producer: from,
      signal,
      onToken(sent) {
        producer = sent;
        progress.textContent = `Token ${sent.seq + 1} of ${TOKENS.length}`;
        element("answer-bar").value = sent.seq / TOKENS.length;
        renderCurl();
      },
    });
    if (answering?.signal !== signal) return; // the page shows another stream by now
    if (!signal.aborted) element("answer-bar").value = 1;
    progress.textContent = signal.aborted
      ? `Stopped at token ${producer.seq + 1} of ${TOKENS.length}`
      : `${TOKENS.length} tokens stored, each exactly once`;
  } catch (error) {
    forget();
    if (!signal.aborted) showError("append-result", error);
  } finally {
    if (answering?.signal === signal) answering = null;
    render();
  }
}

async function closeStream() {
  hideNotices();
  try {
    const closing = stream;
    const { status, offset } = await wire.close(streamUrl(closing.path));
    // The live reader receives the end, too, unless it is paused.
    Object.assign(closing, { offset, closed: true });
    render();
    show("finish-result", "done", `${status} Closed`, "All live readers receive the end of the stream.");
  } catch (error) {
    showError("finish-result", error);
  }
}

async function deleteStream() {
  hideNotices();
  const { path, offset } = stream;
  // The reader stops first. After the delete it would only get an error.
  reader.abort();
  stopAnswer();
  try {
    const { status } = await wire.remove(streamUrl(path));
    output.replaceChildren();
    leave("none");
    form.path.value = randomPath();
    render();
    show("finish-result", "done", `${status} Deleted`, `${path} and its content are gone.`);
  } catch (error) {
    showError("finish-result", error);
    follow(offset);
  }
}

function togglePause() {
  if (["paused", "failed"].includes(live.dataset.state)) return follow(stream.offset || "-1");
  reader.abort();
  setConnection("paused");
}

async function copy(button) {
  const code = element(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    // Without HTTPS or permission there is no clipboard, so the line is selected for copying by keyboard.
    getSelection().selectAllChildren(code);
    return;
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

form.addEventListener("submit", submitCreate);
form.addEventListener("input", render);
element("new-path").addEventListener("click", () => {
  form.path.value = randomPath();
  render();
});
element("append-form").addEventListener("submit", submitAppend);
element("append-form").addEventListener("input", render);
element("simulate").addEventListener("click", () => simulate(newProducer()));
element("close").addEventListener("click", closeStream);
element("delete").addEventListener("click", deleteStream);
element("pause").addEventListener("click", togglePause);
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button));
addEventListener("hashchange", () => resume(location.hash.slice(1)));

form.path.value = randomPath();
setConnection("none");
resume(location.hash.slice(1) || localStorage.getItem(LAST_STREAM) || "");
