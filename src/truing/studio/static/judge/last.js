// The last answers, newest first, so that each can be opened again: those of this page from memory, earlier ones from the studio.

import { get } from "./door.js";

const MOST = 20;

export class Last {
  #own = []; // {question, answer, key, judgement, sent}
  words = ""; // what the newest answer says, where it was one press

  constructor(queue) {
    queue.addEventListener("sent", ({ detail: { body, receipt } }) => {
      const item = this.#own.find((one) => one.key === body.key);
      if (item) Object.assign(item, { judgement: receipt.judgement, sent: true });
    });
    queue.addEventListener("refused", ({ detail: { body } }) => (this.#own = this.#own.filter((one) => one.key !== body.key)));
  }

  get some() {
    return this.#own.length > 0;
  }

  add(question, answer, key) {
    this.#own = [{ question, answer, key, sent: false }, ...this.#own].slice(0, MOST);
  }

  changed(item, answer, key) {
    Object.assign(item, { answer, key, sent: false });
    if (!this.#own.includes(item)) this.#own = [item, ...this.#own].slice(0, MOST);
  }

  // The n-th answer back, 0 being the newest; null where there is none.
  async at(n) {
    if (n >= MOST) return null;
    if (n < this.#own.length) return this.#own[n];
    const { answers } = await get("last");
    const known = new Set(this.#own.map((item) => item.judgement));
    const earlier = answers.filter((one) => !known.has(one.judgement))[n - this.#own.length];
    return earlier ? this.fetch(earlier.judgement) : null;
  }

  async fetch(judgement) {
    const question = await get(`last/${judgement}`);
    return { question, answer: question.answer, judgement, key: null, sent: true };
  }
}
