// What htmx leaves open: it is silent about a server that does not answer, it keeps the CSRF token of the template, and it
// loses the keyboard's place on a card that moves.

const board = document.getElementById("board");
const away = document.getElementById("away");

// The server: whether the last request found it, and whether the stream of events is open. The server ends that stream
// about once a minute, so its end alone means nothing. It has to be open again before the page says that all is well.

const found = { request: true, events: true };
let isAway = false;

/** Shows what can be done now. A button that has the focus keeps it, which `disabled` would take. */
function show() {
  away.hidden = !isAway;
  document.body.dataset.server = isAway ? "away" : "here";
  for (const button of document.querySelectorAll(".board button, .add button")) {
    if (isAway) button.setAttribute("aria-disabled", "true");
    else button.removeAttribute("aria-disabled");
  }
}

function learn(news) {
  const before = isAway;
  Object.assign(found, news);
  isAway = !found.request || (isAway && !found.events);
  if (before !== isAway) show();
}

document.body.addEventListener("htmx:sendError", () => learn({ request: false }));
document.body.addEventListener("htmx:afterRequest", ({ detail }) => {
  if (detail.xhr.status) learn({ request: detail.xhr.status < 500 });
});
document.body.addEventListener("htmx:sseError", () => learn({ events: false }));
document.body.addEventListener("htmx:sseOpen", () => learn({ events: true }));
// The page's signs of life go on, and find the server when it is back. Nothing else is sent before.
document.body.addEventListener("htmx:beforeRequest", (event) => {
  if (isAway && event.detail.requestConfig.verb === "post" && event.target.id !== "visitors") event.preventDefault();
});

// Requests

document.body.addEventListener("htmx:configRequest", ({ detail }) => {
  // A login in another tab changes the token of the template. The cookie has the new one.
  const cookie = document.cookie.match(/(?:^|; )csrftoken=([^;]+)/);
  if (cookie) detail.headers["X-CSRFToken"] = cookie[1];
});

// The form: the answer to a new card brings another one, which must not take what is typed meanwhile.

const isForm = (element) => element.matches("form.add");
let typed = "";

document.body.addEventListener("htmx:beforeSend", ({ target }) => {
  if (isForm(target)) target.elements.text.value = "";
});
document.body.addEventListener("htmx:afterRequest", ({ target, detail }) => {
  if (!isForm(target) || detail.successful) return;
  const { text } = target.elements;
  text.value = [detail.requestConfig.parameters.text, text.value].filter(Boolean).join(" ");
});
document.body.addEventListener("htmx:beforeSwap", ({ target }) => {
  if (isForm(target)) typed = target.elements.text.value;
});
document.body.addEventListener("htmx:afterSwap", ({ target }) => {
  if (isForm(target)) target.elements.text.value ||= typed;
});

// The keyboard

/** Where the focus was last on the board: the card, the column, and the place of the card in it. */
let place = null;

document.addEventListener("focusin", ({ target }) => {
  const card = target.closest("#board .card");
  place = card && {
    id: card.id,
    column: card.closest(".column").getAttribute("aria-labelledby"),
    index: [...card.parentElement.children].indexOf(card),
  };
});

/** The card that had the focus, or if it is gone the one in its place, or else the form. */
function nearest({ id, column, index }) {
  const cards = board.querySelectorAll(`[aria-labelledby="${column}"] .card`);
  const card = document.getElementById(id) ?? cards[Math.min(index, cards.length - 1)];
  return card?.querySelector("button") ?? document.getElementById("card-text");
}

new MutationObserver(() => {
  if (isAway) show(); // new buttons
  if (place && document.activeElement === document.body) nearest(place).focus();
}).observe(board, { childList: true });
