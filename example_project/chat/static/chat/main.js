// The page of a chat. It sends messages and follows the stream; it writes no answer and stores nothing.

import { noteBranch, noteChat, showChats, takeBranch } from "./chats.js";
import { Conversation } from "./conversation.js";
import { markdown } from "./markdown.js";
import { read } from "./reader.js";

const { chat, page, stream, send, stop, branch, health } = document.body.dataset;
const element = (id) => document.getElementById(id);
const list = element("messages");
const talk = document.querySelector(".talk");
const composer = element("composer");
const text = element("text");

let conversation = new Conversation();
/** The elements of the messages, by id, with what they show. */
const shown = new Map();
const wasReloaded = performance.getEntriesByType("navigation")[0]?.type === "reload";
const cameLate = document.body.dataset.state === "loading";
/** Whether the visitor has just made this chat as a branch, and so has seen its answer begin. */
const isNewBranch = takeBranch(page);
/** The characters of a running answer that were there when this page was opened. Null: not known yet. */
let restored = cameLate && !isNewBranch ? null : 0;
let isReading = false;
let isServerThere = true;
let isDrawing = false;
let isSending = false;

const newId = () => `m-${[...crypto.getRandomValues(new Uint32Array(3))].map((part) => part.toString(36)).join("")}`;

// Requests

async function post(url, body, headers = {}) {
  // A login in another tab changes the token. The cookie has the new one.
  const cookie = document.cookie.match(/(?:^|; )csrftoken=([^;]+)/);
  const token = cookie?.[1] ?? document.querySelector("[name=csrfmiddlewaretoken]").value;
  const response = await fetch(url, { method: "POST", headers: { "X-CSRFToken": token, ...headers }, body });
  if (response.ok) return response;
  const reason = await response.json().then(({ error }) => error, () => response.statusText);
  throw new Error(reason || `The server refuses with ${response.status}.`);
}

const ask = (id, message, more = {}) =>
  post(
    send,
    JSON.stringify({ id, messages: [{ id: message.id, role: "user", parts: [{ type: "text", text: message.text }] }], ...more }),
    { "Content-Type": "application/json" },
  );

function showProblem(error) {
  element("problem").hidden = !error;
  if (error) element("problem").textContent = error instanceof TypeError ? "The server does not answer." : error.message;
}

/** Does something that sends requests, and shows why if it fails. Returns whether it has worked. */
async function attempt(action) {
  if (isSending) return false;
  isSending = true;
  showProblem(null);
  try {
    await action();
    return true;
  } catch (error) {
    showProblem(error);
    return false;
  } finally {
    isSending = false;
    draw();
  }
}

async function sendText(value) {
  await ask(chat, { id: newId(), text: value });
  // From now on the address is that of the chat, so a reload finds it.
  if (location.pathname !== page) history.pushState(null, "", page);
  startReading();
}

/** Asks again with another text: in a fork of the stream that ends before the message. */
async function sendBranch(message, value) {
  const made = await (await post(branch, new URLSearchParams({ before: message.id }))).json();
  await ask(made.id, { id: newId(), text: value });
  noteBranch(made.url, page);
  location.assign(made.url);
}

const answerAgain = () =>
  ask(chat, conversation.messages.findLast(({ role }) => role === "user"), { trigger: "regenerate-message" });

// Display

function button(label, onclick, className = "quiet") {
  const made = document.createElement("button");
  made.type = "button";
  made.className = className;
  made.textContent = label;
  made.addEventListener("click", onclick);
  return made;
}

function note(content) {
  const made = document.createElement("p");
  made.className = "note";
  made.textContent = content;
  return made;
}

function editForm(message, item) {
  const form = document.createElement("form");
  const field = document.createElement("textarea");
  const submit = button("Ask in a branch", null, "primary");
  const actions = document.createElement("div");
  field.value = message.text;
  field.required = true;
  field.maxLength = 4000;
  field.setAttribute("aria-label", "New version of the message");
  submit.type = "submit";
  actions.className = "actions";
  const cancel = () => {
    form.replaceWith(userContent(message, item));
    item.querySelector("button").focus();
  };
  actions.append(submit, button("Cancel", cancel));
  form.append(field, actions);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(() => sendBranch(message, field.value.trim()));
  });
  form.addEventListener("keydown", (event) => event.key === "Escape" && cancel());
  submitByEnter(field, form);
  return { form, field };
}

function userContent(message, item) {
  const content = document.createElement("div");
  content.className = "bubble";
  const words = document.createElement("p");
  words.textContent = message.text;
  const edit = button("Edit", () => {
    const { form, field } = editForm(message, item);
    content.replaceWith(form);
    field.focus();
  });
  edit.setAttribute("aria-label", "Edit this message in a branch");
  content.append(words, edit);
  return content;
}

function answerContent(message) {
  const content = document.createElement("div");
  content.className = "answer";
  content.append(...markdown(message.text, message.status === "streaming"));
  if (message.continued !== undefined)
    content.append(note(`Its process ended after ${message.continued} characters. Another one went on from there.`));
  if (message.status === "streaming" && !message.text) content.append(note("Thinking…"));
  if (message.status === "stopped") content.append(note("Stopped."));
  if (message.status === "failed") content.append(note(message.error));
  if (["stopped", "failed"].includes(message.status) && message === conversation.last)
    content.append(button("Answer again", () => attempt(answerAgain)));
  return content;
}

function drawMessage(message) {
  let entry = shown.get(message.id);
  if (!entry) {
    const item = document.createElement("li");
    entry = { item, state: "" };
    shown.set(message.id, entry);
    list.append(item);
  }
  const state = JSON.stringify([message, message === conversation.last]);
  if (entry.state === state) return;
  entry.state = state;
  const { item } = entry;
  item.className = message.role;
  item.dataset.status = message.status;
  item.setAttribute("aria-busy", String(message.status === "streaming"));
  item.replaceChildren(message.role === "user" ? userContent(message, item) : answerContent(message));
}

/** What the visitor may do now, and what has just happened. */
function hint() {
  if (!isServerThere)
    return ["The server does not answer.", "What is written is safe. The answer goes on when the server is back."];
  if (!conversation.isStreaming || !conversation.last.text) return null;
  if (!restored) return ["Now reload this page.", "The answer goes on without it."];
  const came = `${restored} characters came back from the stream, and the rest follows as it is written.`;
  return wasReloaded ? ["Reloaded, and nothing is lost.", came] : ["This page came late, and missed nothing.", came];
}

function drawHint() {
  const [title, words] = hint() ?? [];
  const card = element("hint");
  card.hidden = !title;
  card.dataset.kind = !isServerThere ? "away" : restored ? "restored" : "reload";
  if (element("hint-title").textContent !== (title ?? "")) element("hint-title").textContent = title ?? "";
  element("hint-text").textContent = words ?? "";
  element("reload").textContent = restored ? "Again" : "Reload";
  element("reload").hidden = !isServerThere;
}

/** How far the end of the talk is below the window, in pixels. On a phone other things follow the talk. */
const belowWindow = () => talk.getBoundingClientRect().bottom - innerHeight;

function draw() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    const { messages, isStreaming } = conversation;
    const atEnd = belowWindow() < 120;
    if (messages.length) document.body.dataset.state = isStreaming ? "streaming" : "ready";
    const ids = new Set(messages.map(({ id }) => id));
    for (const [id, { item }] of shown) if (!ids.has(id)) (item.remove(), shown.delete(id));
    messages.forEach(drawMessage);
    if (restored === null && messages.length) restored = isStreaming ? conversation.last.text.length : 0;
    if (!isStreaming && restored !== null) restored = 0;
    drawHint();
    element("send").hidden = isStreaming;
    element("stop").hidden = !isStreaming;
    element("send").disabled = isSending;
    if (messages.length) noteChat(page, messages.findLast(({ role }) => role === "user")?.text);
    if (atEnd && belowWindow() > 0) scrollBy({ top: belowWindow(), behavior: "instant" });
  });
}

// A screen reader hears that an answer begins and how it ends, and not each token.
const SPOKEN = { start: "An answer begins.", finish: "The answer is complete.", stopped: "The answer was stopped." };

function startReading() {
  if (isReading) return;
  isReading = true;
  read(stream, health, {
    event(event) {
      conversation.add(event);
      if (event.type === "failed") element("news").textContent = event.error ?? "The answer failed.";
      else if (event.type in SPOKEN) element("news").textContent = SPOKEN[event.type];
      draw();
    },
    isExpecting: () => conversation.isStreaming,
    server(isThere) {
      isServerThere = isThere;
      element("news").textContent = isThere ? "The server is back." : "The server does not answer.";
      draw();
    },
    refused(status) {
      isReading = false; // the next message begins again, from the start of the stream
      conversation = new Conversation();
      showProblem(new Error(`The stream of this chat cannot be read: the server refuses with ${status}.`));
      draw();
    },
  });
}

// Actions of the visitor

function submitByEnter(field, form) {
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
}

composer.addEventListener("submit", async (event) => {
  event.preventDefault();
  const value = text.value.trim();
  if (!value || conversation.isStreaming) return;
  if (await attempt(() => sendText(value))) composer.reset();
});
submitByEnter(text, composer);
for (const question of document.querySelectorAll("[data-text]"))
  question.addEventListener("click", () => attempt(() => sendText(question.dataset.text)));
element("stop").addEventListener("click", () => attempt(() => post(stop)));
element("reload").addEventListener("click", () => location.reload());
addEventListener("popstate", () => location.reload());

showChats(page);
if (cameLate) startReading();
