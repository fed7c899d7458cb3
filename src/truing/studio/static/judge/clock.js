// How long somebody was at a question: time with the page in view, up to 30 s after each sign of life. What the clock on the wall says
// is kept beside it.

const IDLE = 30_000; // ms
const SIGNS = ["keydown", "pointermove", "pointerdown", "wheel", "touchmove", "scroll"];

export class Clock {
  #active = 0;
  #sign = null; // when the last sign of life was; null while nobody looks
  startedAt = null;

  constructor() {
    for (const sign of SIGNS) document.addEventListener(sign, () => this.#alive(), { capture: true, passive: true });
    document.addEventListener("visibilitychange", () => this.#seen());
  }

  start({ started_at: startedAt, active_ms: activeMs } = {}) {
    this.startedAt = startedAt ?? new Date().toISOString();
    this.#active = activeMs ?? 0;
    this.#sign = document.hidden ? null : performance.now();
  }

  read() {
    return { started_at: this.startedAt, active_ms: Math.round(this.#active + this.#since()) };
  }

  #since() {
    return this.#sign === null ? 0 : Math.min(performance.now() - this.#sign, IDLE);
  }

  #alive() {
    if (document.hidden) return;
    this.#active += this.#since();
    this.#sign = performance.now();
  }

  #seen() {
    this.#active += this.#since();
    this.#sign = document.hidden ? null : performance.now();
  }
}
