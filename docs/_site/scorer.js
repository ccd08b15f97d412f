// How the search of the site orders its results. Sphinx gives each word the same points on every page. A question is most
// often a message or a status, then about a task, and least often about the changelog.

const isSetting = /^[A-Z][A-Z_]+$/.test(new URLSearchParams(location.search).get("q") ?? "");

var Scorer = {
  score([page, , , , score]) {
    if (page === "settings" && isSetting) return score + 30;
    // With a word of one of its titles, as "reader", before the page on refusals. Otherwise after it.
    if (page === "howto/nothing-live") return score + (score < 15 ? 19 : 21);
    if (page === "howto/refused") return score + 20;
    if (/^howto\//.test(page)) return score + 6;
    if (/^(reference\/changelog|architecture|decisions\/|benchmarks)/.test(page)) return score - 20;
    return score;
  },

  // The points of Sphinx.
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
