// What has been entered and not yet answered: in the browser's storage at once, at the studio a second later.

import { post } from "./door.js";

const DELAY = 1000; // ms from the first change to the studio
const FORGOTTEN = 14 * 24 * 3600 * 1000; // ms after which the browser lets a draft go

export class Drafts extends EventTarget {
  #prefix;
  #timer = 0;
  #pending = null;

  constructor(me) {
    super();
    this.#prefix = `truing:${me}:draft:`;
    for (const name of Object.keys(localStorage)) if (name.startsWith(this.#prefix) && this.#isOld(name)) localStorage.removeItem(name);
    document.addEventListener("visibilitychange", () => document.hidden && this.flush());
  }

  note(claim, draft) {
    const stamped = { ...draft, at: Date.now() };
    this.#keep(claim, stamped);
    if (this.#pending && this.#pending.claim !== claim) this.flush();
    if (!this.#pending) this.#timer = setTimeout(() => this.flush(), DELAY);
    this.#pending = { claim, draft: stamped };
  }

  async flush() {
    const pending = this.#pending;
    clearTimeout(this.#timer);
    this.#pending = null;
    if (!pending) return;
    try {
      await post("draft", pending);
      this.dispatchEvent(new Event("saved"));
    } catch {
      // the browser has it; the next change is sent with all that came before
    }
  }

  // The newer of what this browser and the studio have of a question.
  find({ claim, draft }) {
    const here = this.#read(this.#prefix + claim);
    return (here?.at ?? 0) > (draft?.at ?? 0) ? here : draft;
  }

  done(claim) {
    if (this.#pending?.claim === claim) {
      clearTimeout(this.#timer);
      this.#pending = null;
    }
    localStorage.removeItem(this.#prefix + claim);
  }

  #keep(claim, draft) {
    try {
      localStorage.setItem(this.#prefix + claim, JSON.stringify(draft));
    } catch {
      // no room: the studio gets it in a second
    }
  }

  #read(name) {
    return JSON.parse(localStorage.getItem(name));
  }

  #isOld(name) {
    return Date.now() - (this.#read(name)?.at ?? 0) > FORGOTTEN;
  }
}
