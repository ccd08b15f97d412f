// How the search of the site orders its results. Sphinx gives each word the same points on every page, and a question is
// most often about a guide, and least often about the changelog.

var Scorer = {
  score([page, , , , score]) {
    if (/^howto\//.test(page)) return score + 20;
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
