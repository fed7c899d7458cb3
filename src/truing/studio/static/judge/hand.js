// The questions that were lent to this page: the one on the screen, and a few ahead so that the next is there at once.
//
// Four in all. At a quarter of a minute each they last a minute without the network; more would keep questions from other people for as
// long as a lease runs. A question ahead that nobody has looked at is let go before its lease ends. An answer that is sent brings the next
// question back with its receipt; the rest are asked for by themselves.
//
// Events: "change" (a question came in, or it became known that there is none).

import { post } from "./door.js";

const IN_HAND = 4;
const MOST_BESIDES = 10; // the studio lends nothing beside more
const RETRY = 3000; // ms
const LOOK_AGAIN = 30_000; // ms, when nothing was left
const AWAY = 600_000; // ms out of sight after which the questions ahead are given back
const MARGIN = 60; // seconds before its lease ends at which a question ahead is let go

export class Hand extends EventTarget {
  #queue;
  #filling = false;
  #timer = 0;
  #away = 0;
  #dropped = 0; // questions that were answered
  questions = [];
  nothing = null; // why there is no further question: {why, leave_by}
  trouble = null; // why none could be asked for
  progress = null; // how far the studio says they are, until the page has taken note

  constructor(queue) {
    super();
    this.#queue = queue;
    window.addEventListener("online", () => this.fill());
    queue.wish = () => (this.#wants() ? { besides: this.#besides(), counted: this.#counted(1) } : null);
    queue.addEventListener("sent", ({ detail: { receipt, wish } }) => wish && receipt.next && this.#take(receipt.next, wish.counted));
    queue.addEventListener("change", ({ detail }) => detail.waiting || this.fill());
    document.addEventListener("visibilitychange", () => this.#seen());
  }

  get first() {
    const [shown, ...ahead] = this.questions;
    this.questions = shown ? [shown, ...ahead.filter((question) => Date.now() < question.until)] : [];
    return this.questions[0] ?? null;
  }

  drop(claim) {
    this.#dropped += 1;
    this.nothing = null; // the answer may have changed that
    this.questions = this.questions.filter((question) => question.claim !== claim);
  }

  async fill() {
    if (this.#filling) return;
    this.#filling = true;
    clearTimeout(this.#timer);
    try {
      while (this.#wants()) await this.#askForOne();
      this.trouble = null;
    } catch (trouble) {
      this.trouble = trouble;
      this.#timer = setTimeout(() => this.fill(), RETRY);
    }
    this.#filling = false;
    if (this.nothing && !this.questions.length) this.#timer = setTimeout(() => this.lookAgain(), LOOK_AGAIN);
    this.#tell();
  }

  lookAgain() {
    this.nothing = null;
    return this.fill();
  }

  #seen() {
    clearTimeout(this.#away);
    if (document.hidden) this.#away = setTimeout(() => this.#giveBack(), AWAY);
    else this.fill();
  }

  #giveBack() {
    const [shown, ...ahead] = this.questions;
    this.questions = shown ? [shown] : [];
    for (const { claim } of ahead) post("release", { claim }).catch(() => {}); // otherwise its lease ends by itself
  }

  #wants() {
    return this.questions.length < IN_HAND && !this.nothing && this.#besides().length < MOST_BESIDES;
  }

  #besides() {
    return [...new Set([...this.questions.map((question) => question.claim), ...this.#queue.claims()])];
  }

  async #askForOne() {
    const counted = this.#counted(0);
    this.#take(await post("next", { besides: this.#besides() }), counted);
  }

  // How many answers the studio knows of if only this many are on their way; -1 if there are more.
  #counted(sending) {
    return this.#queue.names().length > sending ? -1 : this.#dropped;
  }

  #take({ question, nothing, progress }, counted) {
    if (counted === this.#dropped) this.progress = progress; // otherwise it doesn't know of answers on their way
    this.nothing = nothing;
    if (question && !this.#besides().includes(question.claim)) {
      question.until = Date.now() + (question.lease_seconds - MARGIN) * 1000;
      this.questions.push(question);
    }
    this.#tell();
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }
}
