// The part of Markdown that answers use, as elements. It sets texts only, so nothing in an answer becomes HTML.

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|(?<!\*)\*([^*\s][^*]*)\*/g;
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

const OPEN_MARK = /(\*\*|`)([^*`]*)\*?$/;
const HALF_MARK = /(^|\s)\*$/;

/** A growing text with the mark closed that is open in its last line. Of a mark that has no words yet, nothing is left. */
function closeMark(text) {
  const fences = text.split("\n").filter((line) => FENCE.test(line)).length;
  if (fences % 2) return text;
  const line = text.slice(text.lastIndexOf("\n") + 1);
  const rest = line.replace(INLINE, "");
  const open = OPEN_MARK.exec(rest);
  if (!open) return text.replace(HALF_MARK, "$1");
  const [whole, mark, words] = open;
  if (!words.trim()) return text.slice(0, text.length - whole.length);
  return text.slice(0, text.length - whole.length) + mark + words.trimEnd() + mark;
}

/**
 * The elements of a text. A text that is cut anywhere has elements too, so an answer can be shown as it grows.
 *
 * `isGrowing`: more may follow, so a mark that is open is not shown as it is.
 */
export function markdown(text, isGrowing = false) {
  const lines = (isGrowing ? closeMark(text) : text).split("\n");
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
