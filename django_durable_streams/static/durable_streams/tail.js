/* Follows a stream: requests the messages after the last one on the page, and adds them to the list. */
"use strict";

(() => {
  const MAX_MESSAGES = 500;
  const MAX_RETRY_SECONDS = 30;
  const MAX_REQUEST_SECONDS = 45; // a network that has gone silent closes nothing

  const bar = document.getElementById("ds-live");
  if (bar === null) return;
  const list = document.getElementById("ds-messages");
  const text = document.getElementById("ds-live-text");
  const button = document.getElementById("ds-live-button");
  const pollSeconds = Number(bar.dataset.poll);

  let position = bar.dataset.from;
  let state = "off"; // live, paused, hidden, lost or over
  let failures = 0;
  let request = null;
  let timer = null;

  function show(next, sentence) {
    state = next;
    bar.dataset.state = next;
    // Screen readers announce each change of the text, even to the same text.
    if (text.textContent !== sentence) text.textContent = sentence;
    button.hidden = next === "over" || next === "hidden";
    button.textContent = bar.dataset[{ paused: "textResume", lost: "textRetry" }[next] || "textPause"];
  }

  function halt() {
    clearTimeout(timer);
    if (request !== null) request.abort();
    request = null;
  }

  function end(sentence) {
    halt();
    show("over", sentence);
  }

  function start() {
    halt();
    if (document.hidden) return show("hidden", bar.dataset.textHidden);
    if (state !== "live" && failures === 0) show("live", bar.dataset.textLive);
    return requestNew();
  }

  async function requestNew() {
    const controller = (request = new AbortController());
    const silence = setTimeout(() => controller.abort(), MAX_REQUEST_SECONDS * 1000);
    try {
      const response = await fetch(`${bar.dataset.url}?from=${position}`, {
        credentials: "same-origin",
        redirect: "manual",
        cache: "no-store",
        signal: controller.signal,
      });
      if (response.type === "opaqueredirect" || response.status === 401 || response.status === 403) {
        return end(bar.dataset.textDenied);
      }
      if (response.status === 404) return end(bar.dataset.textGone);
      if (!response.ok) throw new Error(String(response.status));
      const newData = response.status === 204 ? null : await response.json();
      if (controller !== request) return undefined; // paused meanwhile
      failures = 0;
      show("live", bar.dataset.textLive);
      if (newData !== null) addMessages(newData);
      if (state === "live") timer = setTimeout(requestNew, newData !== null && newData.more ? 0 : pollSeconds * 1000);
    } catch (error) {
      if (controller !== request) return undefined;
      failures += 1;
      retryAfter(Math.min(2 ** (failures - 1), MAX_RETRY_SECONDS));
    } finally {
      clearTimeout(silence);
    }
    return undefined;
  }

  function retryAfter(seconds) {
    show("lost", bar.dataset.textLost.replace("%s", seconds));
    timer = setTimeout(requestNew, seconds * 1000);
  }

  function addMessages(newData) {
    const isAtEnd = list.getBoundingClientRect().bottom < window.innerHeight + 120;
    if (newData.skipped) {
      const gap = document.createElement("li");
      gap.className = "ds-gap";
      gap.textContent = bar.dataset.textSkipped;
      list.append(gap);
    }
    const parsed = document.createElement("template");
    parsed.innerHTML = newData.html; // the server has escaped it, like the rest of the page
    for (const message of parsed.content.querySelectorAll("li")) {
      message.classList.add("ds-new");
      list.append(message);
    }
    while (list.children.length > MAX_MESSAGES) list.firstElementChild.remove();
    position = String(newData.position);
    document.getElementById("ds-nothing")?.remove();
    document.getElementById("ds-state").innerHTML = newData.state;
    document.getElementById("ds-size").textContent = newData.size;
    document.getElementById("ds-offset").textContent = newData.offset;
    if (newData.count > 0 && isAtEnd) list.lastElementChild.scrollIntoView({ block: "nearest" });
    if (newData.closed && !newData.more) end(bar.dataset.textClosed);
  }

  button.addEventListener("click", () => {
    if (state === "live") {
      halt();
      failures = 0;
      show("paused", bar.dataset.textPaused);
    } else {
      start();
    }
  });

  document.addEventListener("visibilitychange", () => {
    if (state === "over" || state === "paused") return;
    if (document.hidden) {
      halt();
      failures = 0;
      show("hidden", bar.dataset.textHidden);
    } else {
      start();
    }
  });

  bar.hidden = false;
  start();
})();
