// The same requests as lines for a terminal.

const escapes = { "\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t" };

const plain = /^[\w@%+=:,./~-]+$/;

// POSIX quoting; text with control characters needs bash's and zsh's $'...'.
export function quote(text) {
  if (plain.test(text)) return text;
  if (/[\n\r\t]/.test(text)) return `$'${text.replace(/[\\'\n\r\t]/g, (character) => escapes[character])}'`;
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** The words of a command line: each option with its value is one, so that a line can break between them. */
export function curl(url, { flags = "-i", method, headers = {}, body } = {}) {
  return [
    ["curl", flags, ...(method ? [`-X ${method}`] : [])].join(" "),
    ...Object.entries(headers).map(([name, value]) => `-H ${quote(`${name}: ${value}`)}`),
    // Not --data-binary, for which a text that begins with @ is the name of a file.
    ...(body === undefined ? [] : [`--data-raw ${quote(body)}`]),
    quote(url),
  ];
}
