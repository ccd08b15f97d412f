/* Follows a stream: asks for what is past the last message on the page, and puts it there. Nothing else is needed. */
"use strict";

(() => {
  const MOST_MESSAGES = 500;
  const LONGEST_WAIT = 30;

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
    // A status that is said again is read out again.
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

  function go() {
    halt();
    if (document.hidden) return show("hidden", bar.dataset.textHidden);
    if (state !== "live" && failures === 0) show("live", bar.dataset.textLive);
    return ask();
  }

  async function ask() {
    const mine = (request = new AbortController());
    try {
      const answer = await fetch(`${bar.dataset.url}?from=${position}`, {
        credentials: "same-origin",
        redirect: "manual",
        cache: "no-store",
        signal: mine.signal,
      });
      if (answer.type === "opaqueredirect" || answer.status === 401 || answer.status === 403) {
        return end(bar.dataset.textDenied);
      }
      if (answer.status === 404) return end(bar.dataset.textGone);
      if (!answer.ok) throw new Error(String(answer.status));
      const news = answer.status === 204 ? null : await answer.json();
      if (mine !== request) return undefined; // paused meanwhile
      failures = 0;
      show("live", bar.dataset.textLive);
      if (news !== null) take(news);
      if (state === "live") timer = setTimeout(ask, news !== null && news.more ? 0 : pollSeconds * 1000);
    } catch (error) {
      if (mine !== request) return undefined;
      failures += 1;
      lose(Math.min(2 ** (failures - 1), LONGEST_WAIT));
    }
    return undefined;
  }

  function lose(seconds) {
    show("lost", bar.dataset.textLost.replace("%s", seconds));
    timer = setTimeout(ask, seconds * 1000);
  }

  function take(news) {
    const isAtEnd = list.getBoundingClientRect().bottom < window.innerHeight + 120;
    if (news.skipped) {
      const gap = document.createElement("li");
      gap.className = "ds-gap";
      gap.textContent = bar.dataset.textSkipped;
      list.append(gap);
    }
    const parsed = document.createElement("template");
    parsed.innerHTML = news.html; // made and escaped by the server, as the rest of the page is
    for (const message of parsed.content.querySelectorAll("li")) {
      message.classList.add("ds-new");
      list.append(message);
    }
    while (list.children.length > MOST_MESSAGES) list.firstElementChild.remove();
    position = String(news.position);
    document.getElementById("ds-nothing")?.remove();
    document.getElementById("ds-state").innerHTML = news.state;
    document.getElementById("ds-size").textContent = news.size;
    document.getElementById("ds-offset").textContent = news.offset;
    if (news.count > 0 && isAtEnd) list.lastElementChild.scrollIntoView({ block: "nearest" });
    if (news.closed && !news.more) end(bar.dataset.textClosed);
  }

  button.addEventListener("click", () => {
    if (state === "live") {
      halt();
      failures = 0;
      show("paused", bar.dataset.textPaused);
    } else {
      go();
    }
  });

  document.addEventListener("visibilitychange", () => {
    if (state === "over" || state === "paused") return;
    if (document.hidden) {
      halt();
      failures = 0;
      show("hidden", bar.dataset.textHidden);
    } else {
      go();
    }
  });

  bar.hidden = false;
  go();
})();
