// How the page speaks with the studio: JSON over /judge/api, with a time limit. What fails is either the network's doing or a refusal.

const LONGEST_WAIT = 15_000; // ms; a request that takes longer is tried again
const KEPT_ALIVE = 60_000; // bytes that a browser still sends when its page is closed
const FINAL = [400, 404, 409, 413, 422]; // the same request would be refused again

export class Refused extends Error {
  constructor(status, { what, fix }, retryAfter) {
    super(what);
    this.status = status;
    this.fix = fix;
    this.final = FINAL.includes(status);
    this.signedOut = status === 401;
    this.retryAfter = Number(retryAfter) || 0; // seconds
  }
}

export const get = (path) => call(path, {});

export function post(path, body) {
  const text = JSON.stringify(body);
  return call(path, { method: "POST", body: text, keepalive: text.length < KEPT_ALIVE });
}

async function call(path, options) {
  const headers = { accept: "application/json", "content-type": "application/json" };
  const response = await fetch(`/judge/api/${path}`, { ...options, headers, signal: AbortSignal.timeout(LONGEST_WAIT) });
  if (response.ok) return response.json();
  const said = await response.json().catch(() => ({ what: `the studio answered ${response.status}`, fix: "try again" }));
  throw new Refused(response.status, said, response.headers.get("retry-after"));
}

export function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // over plain http in a local network browsers offer no randomUUID
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
