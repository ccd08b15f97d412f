// The part of Markdown that answers use, as elements. It sets texts only, so nothing in an answer becomes HTML.

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*/g;
const FENCE = /^```(\w*)\s*$/;
const BULLET = /^[-*] +/;
const NUMBER = /^\d+\. +/;

function element(name, ...content) {
  const made = document.createElement(name);
  made.append(...content);
  return made;
}

function inline(text) {
  const made = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, code, strong, emphasis] = match;
    made.push(text.slice(end, match.index));
    if (code) made.push(element("code", code));
    else if (strong) made.push(element("strong", strong));
    else made.push(element("em", emphasis));
    end = match.index + whole.length;
  }
  made.push(text.slice(end));
  return made;
}

function codeBlock(lines) {
  const code = [];
  for (let line = lines.shift(); line !== undefined && !FENCE.test(line); line = lines.shift()) code.push(line);
  const block = element("pre", element("code", code.join("\n")));
  block.tabIndex = 0; // it may scroll, which has to be possible by keyboard
  return block;
}

function list(name, mark, lines) {
  const items = [];
  while (lines.length && mark.test(lines[0])) items.push(element("li", ...inline(lines.shift().replace(mark, ""))));
  return element(name, ...items);
}

const begins = (line) => FENCE.test(line) || BULLET.test(line) || NUMBER.test(line) || /^#{1,4} /.test(line);

/** The elements of a text. A text that is cut anywhere has elements too, so an answer can be shown as it grows. */
export function markdown(text) {
  const lines = text.split("\n");
  const blocks = [];
  while (lines.length) {
    const line = lines[0];
    if (!line.trim()) lines.shift();
    else if (FENCE.test(line)) blocks.push(codeBlock((lines.shift(), lines)));
    else if (BULLET.test(line)) blocks.push(list("ul", BULLET, lines));
    else if (NUMBER.test(line)) blocks.push(list("ol", NUMBER, lines));
    else if (/^#{1,4} /.test(line)) blocks.push(element("h3", ...inline(lines.shift().replace(/^#+ /, ""))));
    else {
      const paragraph = [lines.shift()];
      while (lines.length && lines[0].trim() && !begins(lines[0])) paragraph.push(lines.shift());
      blocks.push(element("p", ...inline(paragraph.join(" "))));
    }
  }
  return blocks;
}
