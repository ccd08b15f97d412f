// The protocol of this page: one function for each operation on a stream.

import { loggedFetch } from "./log.js";

const SEGMENT = "[A-Za-z0-9._~-]+";
const PATH = new RegExp(`^${SEGMENT}(/${SEGMENT})*$`);

// Paths may come from the address bar, so they are checked before they become part of a URL.
export function isStreamPath(path) {
  return PATH.test(path) && !path.split("/").some((part) => part === "." || part === ".." || part === "__ds");
}

export const isJson = (contentType) => contentType.split(";")[0].trim().toLowerCase() === "application/json";

/** An error response of the server, with its own text (`application/problem+json`, RFC 9457). */
export class Refused extends Error {
  constructor(status, title, detail) {
    super(title);
    this.status = status;
    this.detail = detail;
  }

  // The same request may succeed later: the server is busy or broken, and the request is valid.
  get passing() {
    return this.status === 429 || this.status >= 500;
  }

  static async from(response) {
    let problem = {};
    if ((response.headers.get("Content-Type") ?? "").startsWith("application/problem+json")) {
      problem = await response.json().catch(() => ({}));
    }
    return new Refused(response.status, problem.title || response.statusText || "Refused", problem.detail || "");
  }
}

async function send(method, url, headers, body) {
  const response = await loggedFetch(url, { method, headers, body, cache: "no-store" });
  if (!response.ok) throw await Refused.from(response);
  return {
    status: response.status,
    offset: response.headers.get("Stream-Next-Offset") ?? "",
    contentType: response.headers.get("Content-Type") ?? "",
    closed: response.headers.get("Stream-Closed")?.toLowerCase() === "true",
  };
}

export const createHeaders = ({ contentType, ttl }) => ({
  "Content-Type": contentType,
  ...(ttl ? { "Stream-TTL": ttl } : {}),
});

export const appendHeaders = (contentType, producer) => ({
  "Content-Type": contentType,
  ...(producer
    ? {
        "Producer-Id": producer.id,
        "Producer-Epoch": String(producer.epoch),
        "Producer-Seq": String(producer.seq),
      }
    : {}),
});

export const CLOSE_HEADERS = { "Stream-Closed": "true" };

export const create = (url, options) => send("PUT", url, createHeaders(options));
export const append = (url, contentType, body, producer) =>
  send("POST", url, appendHeaders(contentType, producer), body);
export const close = (url) => send("POST", url, CLOSE_HEADERS);
export const remove = (url) => send("DELETE", url);
export const describe = (url) => send("HEAD", url);
