// Rankings: each response gets a rank by a number key, by its buttons, by the arrows of its letter, or by dragging the letter.
// Two on one rank are equally good. Nothing is ranked until somebody does it.

import { counted } from "./say.js";

export function mountRanking(stage, { changed, answer }) {
  const cards = [...stage.querySelectorAll(".response")];
  const chips = [...stage.querySelectorAll("[data-chip]")];
  const missing = stage.querySelector("#missing");
  const n = cards.length;
  let ranks = Array(n).fill(0); // 0: not ranked yet
  let at = 0; // the response at hand

  function draw() {
    chips.forEach((chip, i) => place(stage, chip, ranks[i]));
    cards.forEach((card, i) => drawCard(card, ranks, i));
    const left = ranks.filter((rank) => !rank).length;
    missing.textContent = left ? `${counted(left, "response", "responses")} to go` : "";
  }

  function put(i, rank) {
    ranks[i] = Math.max(0, Math.min(rank, n));
    draw();
    changed();
  }

  function go(place, focus = true) {
    at = (place + n) % n;
    cards.forEach((card, i) => card.classList.toggle("at", i === at));
    if (focus) cards[at].focus();
  }

  function rankAndGoOn(rank) {
    put(at, rank);
    const next = ranks.findIndex((its) => !its);
    if (next >= 0) go(next);
  }

  // Up from the pool is the best free rank, down from the last rank is the pool.
  function move(i, step) {
    if (ranks[i]) return put(i, ranks[i] + step > n ? 0 : Math.max(1, ranks[i] + step));
    const free = Array.from({ length: n }, (_, k) => k + 1).filter((rank) => !ranks.includes(rank));
    return put(i, step < 0 ? free[0] : free[free.length - 1]);
  }

  for (const [i, card] of cards.entries()) {
    card.addEventListener("focusin", () => go(i, false));
    card.addEventListener("pointerdown", () => go(i, false));
    for (const button of card.querySelectorAll("[data-rank]")) button.addEventListener("click", () => put(i, ranks[i] === Number(button.dataset.rank) ? 0 : Number(button.dataset.rank)));
  }
  for (const [i, chip] of chips.entries()) {
    for (const button of chip.querySelectorAll("[data-move]"))
      button.addEventListener("click", () => {
        move(i, Number(button.dataset.move));
        button.focus(); // it has moved to another row
      });
    letDrag(stage, chip, (rank) => put(i, rank));
  }
  go(0, false);
  draw();

  return {
    read: () => ({ ranks }),
    write({ ranks: given }) {
      if (given?.length === n) ranks = [...given];
      draw();
    },
    submit() {
      const open = ranks.findIndex((rank) => !rank);
      if (open >= 0) go(open);
      else answer({ ranks: dense(ranks) });
    },
    onKey(key) {
      if (/^[1-9]$/.test(key) && Number(key) <= n) rankAndGoOn(Number(key));
      else if (key === "0" || key === "Backspace") put(at, 0);
      else if (key === "ArrowDown" || key === "ArrowRight") go(at + 1);
      else if (key === "ArrowUp" || key === "ArrowLeft") go(at - 1);
      else return false;
      return true;
    },
  };
}

// 2, 4, 4 → 1, 2, 2: rows that were left empty say nothing.
export function dense(ranks) {
  const steps = [...new Set(ranks)].sort((a, b) => a - b);
  return ranks.map((rank) => steps.indexOf(rank) + 1);
}

function place(stage, chip, rank) {
  const row = stage.querySelector(`[data-drop="${rank}"]`);
  if (chip.parentElement !== row) row.append(chip);
}

function drawCard(card, ranks, i) {
  const rank = ranks[i];
  const level = ranks.filter((its) => its === rank).length > 1;
  card.classList.toggle("ranked", rank > 0);
  card.querySelector(".rank-of").textContent = rank ? `rank ${rank}${level ? ", shared" : ""}` : "not ranked";
  for (const button of card.querySelectorAll("[data-rank]")) button.setAttribute("aria-pressed", String(Number(button.dataset.rank) === rank));
}

// Drag by pointer events, so that a finger drags as a mouse does. Whatever it does, buttons and keys do as well.
function letDrag(stage, chip, drop) {
  const grip = chip.querySelector(".grip");
  let start = null;
  const under = (event) => document.elementsFromPoint(event.clientX, event.clientY).map((found) => found.closest("[data-lane]")).find(Boolean);
  const mark = (lane) => stage.querySelectorAll("[data-lane]").forEach((one) => one.classList.toggle("over", one === lane));

  function end(event) {
    if (!start) return;
    const lane = event.type === "pointerup" ? under(event) : null;
    start = null;
    chip.classList.remove("dragged");
    chip.style.removeProperty("translate");
    mark(null);
    if (lane) drop(Number(lane.dataset.lane));
  }

  grip.addEventListener("pointerdown", (event) => {
    start = [event.clientX, event.clientY];
    grip.setPointerCapture(event.pointerId);
    chip.classList.add("dragged");
    event.preventDefault();
  });
  grip.addEventListener("pointermove", (event) => {
    if (!start) return;
    chip.style.translate = `${event.clientX - start[0]}px ${event.clientY - start[1]}px`;
    mark(under(event));
  });
  grip.addEventListener("pointerup", end);
  grip.addEventListener("pointercancel", end);
}
