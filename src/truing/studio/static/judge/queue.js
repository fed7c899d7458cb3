// Answers on their way to the studio. Each is written to the browser's storage before anything else happens, under a key of its own,
// and leaves it when the studio has acknowledged it: a lost network, a reload or a second tab loses and doubles nothing.
//
// Events: "change" (how many wait, and why), "sent" (detail: body, receipt, wish), "refused" (detail: body, trouble).

import { post } from "./door.js";

const FIRST_WAIT = 1000; // ms; doubled after each failure
const LAST_WAIT = 30_000;

export class Queue extends EventTarget {
  #prefix;
  #unkept = new Map(); // answers that the browser's storage had no room for
  #sending = false;
  #wait = FIRST_WAIT;
  #timer = 0;
  #count = 0;
  trouble = null; // why the last attempt failed
  wish = () => null; // what else to ask for when an answer is sent: {besides, ...}, or null

  constructor(me) {
    super();
    this.#prefix = `truing:${me}:answer:`;
    window.addEventListener("online", () => this.send());
    window.addEventListener("storage", (event) => event.key?.startsWith(this.#prefix) && this.#tell());
  }

  add(path, body) {
    const moment = String(Date.now()).padStart(15, "0");
    this.#count += 1;
    this.#keep(`${this.#prefix}${moment}:${String(this.#count).padStart(6, "0")}:${body.key}`, JSON.stringify({ path, body }));
    this.send();
  }

  get kept() {
    return this.#unkept.size === 0;
  }

  names() {
    const names = [...this.#unkept.keys()];
    for (let place = 0; place < localStorage.length; place++) {
      const name = localStorage.key(place);
      if (name.startsWith(this.#prefix)) names.push(name);
    }
    return names.sort();
  }

  claims() {
    return this.names().map((name) => this.#entry(name)?.body.claim).filter(Boolean);
  }

  async send() {
    if (this.#sending) return;
    this.#sending = true;
    clearTimeout(this.#timer);
    try {
      await alone(this.#prefix, () => this.#sendAll());
      this.#wait = FIRST_WAIT;
      this.trouble = null;
    } catch (trouble) {
      this.#later(trouble);
    }
    this.#sending = false;
    this.#tell();
    if (!this.trouble && this.names().length) this.send(); // one that came in the meantime
  }

  async #sendAll() {
    for (let name = this.names()[0]; name; name = this.names()[0]) {
      this.#tell();
      const entry = this.#entry(name);
      if (!entry) continue; // another tab has sent it
      const { path, body } = entry;
      try {
        const wish = path === "submit" ? this.wish() : null;
        const receipt = await post(path, wish ? { ...body, besides: wish.besides } : body);
        this.#drop(name);
        this.#say("sent", { body, receipt, wish });
      } catch (trouble) {
        if (!trouble.final) throw trouble;
        this.#drop(name);
        this.#say("refused", { body, trouble });
      }
    }
  }

  #later(trouble) {
    this.trouble = trouble;
    const wait = Math.max(this.#wait, (trouble.retryAfter ?? 0) * 1000);
    this.#wait = Math.min(2 * this.#wait, LAST_WAIT);
    this.#timer = setTimeout(() => this.send(), wait * (0.8 + 0.4 * Math.random())); // not everybody at the same moment
  }

  #keep(name, text) {
    try {
      localStorage.setItem(name, text);
    } catch {
      this.#unkept.set(name, text); // full or switched off: the page says that it must stay open
    }
  }

  #entry(name) {
    return JSON.parse(this.#unkept.get(name) ?? localStorage.getItem(name));
  }

  #drop(name) {
    if (!this.#unkept.delete(name)) localStorage.removeItem(name);
  }

  #tell() {
    this.#say("change", { waiting: this.names().length, trouble: this.trouble });
  }

  #say(what, detail) {
    this.dispatchEvent(new CustomEvent(what, { detail }));
  }
}

// One tab sends at a time. Where browsers have no locks (plain http in a local network) two may: the keys make that harmless.
function alone(name, work) {
  return navigator.locks ? navigator.locks.request(name, work) : work();
}
