// The chats of this visitor, and which one a branch was made from. The browser keeps both: the server knows no visitors.

const CHATS = "durable-streams-example:chats";
const BRANCHES = "durable-streams-example:branches";
const ARRIVING = "durable-streams-example:arriving";
const MOST_CHATS = 8;
const MOST_BRANCHES = 50;
const LONGEST_TITLE = 60;

const element = (id) => document.getElementById(id);

/** A value that a storage has as JSON. A browser may refuse its storage, and other pages may write to it. */
function load(storage, key) {
  try {
    const value = JSON.parse(storage().getItem(key));
    return Array.isArray(value) ? value : [];
  } catch {
    return [];
  }
}

function save(storage, key, value) {
  try {
    storage().setItem(key, JSON.stringify(value));
  } catch {
    // Without a storage the list stays empty. The chats themselves are on the server.
  }
}

const local = () => localStorage;
const session = () => sessionStorage;
const isChat = (entry) => typeof entry?.url === "string" && entry.url.startsWith("/c/");

let noted = "";

/** Puts a chat at the top of the visitor's list, with its newest question as the title. */
export function noteChat(url, title = "Chat") {
  if (noted === url + title) return;
  noted = url + title;
  const short = title.length > LONGEST_TITLE ? `${title.slice(0, LONGEST_TITLE)}…` : title;
  const others = load(local, CHATS).filter((entry) => isChat(entry) && entry.url !== url);
  save(local, CHATS, [{ url, title: short }, ...others].slice(0, MOST_CHATS));
  showChats(url);
}

/** Remembers that a chat is a branch of another one, for the page that opens next and for later visits. */
export function noteBranch(url, source) {
  const others = load(local, BRANCHES).filter((entry) => isChat(entry) && entry.url !== url);
  save(local, BRANCHES, [{ url, source }, ...others].slice(0, MOST_BRANCHES));
  save(session, ARRIVING, [url]);
}

/** Whether the visitor has just made this chat as a branch. True once. */
export function takeBranch(url) {
  const isArriving = load(session, ARRIVING)[0] === url;
  if (isArriving) save(session, ARRIVING, []);
  return isArriving;
}

function link(url, title) {
  const made = document.createElement("a");
  made.href = url;
  made.textContent = title;
  return made;
}

/** Shows the list of chats, and of a branch the chat that it was made from. */
export function showChats(page) {
  const items = load(local, CHATS)
    .filter(isChat)
    .map(({ url, title }) => {
      const item = document.createElement("li");
      const made = link(url, String(title));
      if (url === page) made.setAttribute("aria-current", "page");
      item.append(made);
      return item;
    });
  element("chats").replaceChildren(...items);
  element("your-chats").hidden = !items.length;
  const source = load(local, BRANCHES).find((entry) => isChat(entry) && entry.url === page)?.source;
  const isBranch = isChat({ url: source });
  element("source").hidden = !isBranch;
  if (isBranch) element("source-link").href = source;
}
