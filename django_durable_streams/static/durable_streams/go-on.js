/* Sends the form of a page that does long work in several requests, until the work is done or the user leaves. */
"use strict";

(() => {
  const form = document.getElementById("ds-go-on");
  if (form === null) return;
  const timer = setTimeout(() => form.submit(), 50);
  document.getElementById("ds-stop")?.addEventListener("click", () => clearTimeout(timer));
})();
