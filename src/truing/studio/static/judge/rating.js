// Ratings: a row of points for each aspect. Numbers answer the aspect at hand and go on to the next; up and down change the aspect.

import { counted } from "./say.js";

export function mountRating(stage, { changed, answer }) {
  const aspects = [...stage.querySelectorAll(".aspect")];
  const missing = stage.querySelector("#missing");
  let at = 0;

  const chosen = (aspect) => aspect.querySelector("input:checked");
  const open = () => aspects.filter((aspect) => !chosen(aspect));

  function go(place, focus = true) {
    at = Math.max(0, Math.min(place, aspects.length - 1));
    aspects.forEach((aspect, i) => aspect.classList.toggle("at", i === at));
    if (focus) (chosen(aspects[at]) ?? aspects[at].querySelector("input")).focus();
  }

  function tell() {
    missing.textContent = open().length ? `${counted(open().length, "aspect", "aspects")} to go` : "";
  }

  function rate(point) {
    const input = aspects[at].querySelector(`input[value="${point}"]`);
    if (!input) return false;
    input.checked = true;
    entered();
    const next = open()[0];
    go(next ? aspects.indexOf(next) : at);
    return true;
  }

  function entered() {
    tell();
    changed();
  }

  for (const [i, aspect] of aspects.entries()) {
    aspect.addEventListener("focusin", () => go(i, false));
    aspect.addEventListener("change", entered);
  }
  go(0, false);
  tell();

  const read = () => ({ aspects: Object.fromEntries(aspects.filter(chosen).map((aspect) => [aspect.dataset.aspect, Number(chosen(aspect).value)])) });

  return {
    read,
    write({ aspects: given = {} }) {
      for (const aspect of aspects) for (const input of aspect.querySelectorAll("input")) input.checked = Number(input.value) === given[aspect.dataset.aspect];
      tell();
    },
    submit() {
      const next = open()[0];
      if (next) go(aspects.indexOf(next));
      else answer(read());
    },
    onKey(key) {
      if (/^[1-9]$/.test(key)) return rate(Number(key));
      if (key === "ArrowDown" || key === "ArrowUp") go(at + (key === "ArrowDown" ? 1 : -1));
      return key === "ArrowDown" || key === "ArrowUp";
    },
  };
}
