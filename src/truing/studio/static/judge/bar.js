// The bar at the top: how far they are, their pace, and whether everything has been saved.

import { counted } from "./say.js";

const PATIENCE = 600; // ms after which it is worth saying that something is being saved
const COUNTED = 300; // the studio counts what is left no further

export class Bar {
  #saved = document.getElementById("saved");
  #timer = 0;

  far({ today, left, seconds }) {
    const some = today + left > 0; // "0 of 0" says nothing
    document.getElementById("far").textContent = !some ? "" : left >= COUNTED ? `${today} today` : `${today} of ${today + left} today`;
    document.getElementById("each").textContent = seconds ? `~${Math.max(1, Math.round(seconds))} s each` : "";
    const thread = document.getElementById("thread");
    thread.max = Math.max(1, today + left);
    thread.value = today;
  }

  // waiting: answers that the studio has not acknowledged; kept: whether the browser would have them after a reload.
  answers({ waiting, trouble, kept }) {
    clearTimeout(this.#timer);
    if (!waiting) this.say("saved ✓");
    else if (trouble || !kept) this.say(whatWaits(waiting, trouble, kept), true);
    else this.#timer = setTimeout(() => this.say("saving …"), PATIENCE);
  }

  say(words, waits = false) {
    this.#saved.classList.toggle("waits", waits);
    if (this.#saved.textContent !== words) this.#saved.textContent = words; // the same words again would be read out again
  }
}

function whatWaits(waiting, trouble, kept) {
  const answers = `${counted(waiting, "answer", "answers")} ${waiting === 1 ? "waits" : "wait"}`;
  if (!kept) return `keep this page open: ${answers} here`;
  return trouble.signedOut ? `signed out: ${answers} here` : `${answers} for the network`;
}
