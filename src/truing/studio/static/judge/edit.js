// Edits: the response as text that can be changed, and beside it what was changed, word by word.

import { both, compare } from "./diff.js";
import { markPressed } from "./press.js";
import { counted } from "./say.js";

const DELAY = 120; // ms from a key to the comparison

export function mountEdit(stage, { changed, answer }) {
  const box = stage.querySelector("#own");
  const raw = stage.querySelector(".changes .raw");
  const shown = stage.querySelector(".changed");
  const missing = stage.querySelector("#missing");
  let timer = 0;
  box.value = raw.textContent;
  const original = box.value; // as a text box has it, so that it can be compared with what the box holds

  function draw() {
    const same = box.value === original;
    const runs = same ? null : compare(original, box.value);
    stage.querySelector(".changes").classList.toggle("differs", runs !== null);
    shown.hidden = runs === null;
    shown.replaceChildren(...(runs ? both(runs) : []));
    stage.querySelector("[data-words]").textContent = counted(box.value.split(/\s+/).filter(Boolean).length, "word", "words");
    missing.textContent = same ? "nothing changed yet" : "";
  }

  function set(text) {
    box.value = text;
    draw();
  }

  box.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(draw, DELAY);
    changed();
  });
  stage.querySelector('[data-action="reset"]').addEventListener("click", () => {
    set(original);
    changed();
    box.focus();
  });
  const unchanged = stage.querySelector("[data-press]");
  unchanged.addEventListener("click", () => answer(JSON.parse(unchanged.dataset.press)));
  draw();

  return {
    read: () => (box.value === original ? {} : { text: box.value }),
    write(given) {
      set(given.text ?? original);
      markPressed(stage, given);
    },
    submit() {
      if (box.value === original || !box.value.trim()) box.focus();
      else answer({ text: box.value });
    },
    onKey: () => false,
  };
}
