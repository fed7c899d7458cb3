// Keys: each presses the button of an action, so that nothing can be done by keys alone. People can choose other keys for the actions,
// or switch single keys off (WCAG 2.1.4).

import { choose, setting } from "./settings.js";

const PAIR = "A pair";
const THUMBS = "Thumbs";
const ANY = "Any question";
const READ = "Reading";

// action, usual key, words, where it belongs
const ACTIONS = [
  ["lean-1", "1", "Left is much better", PAIR],
  ["lean-2", "2", "Left is better", PAIR],
  ["lean-3", "3", "Left is slightly better", PAIR],
  ["lean-4", "4", "About the same", PAIR],
  ["lean-5", "5", "Right is slightly better", PAIR],
  ["lean-6", "6", "Right is better", PAIR],
  ["lean-7", "7", "Right is much better", PAIR],
  ["tie", "t", "Tie: about the same", PAIR],
  ["both-bad", "b", "Both are bad", PAIR],
  ["thumb-up", "ArrowUp", "Good", THUMBS],
  ["thumb-down", "ArrowDown", "Not good", THUMBS],
  ["submit", "Enter", "Done, where an answer has parts", ANY],
  ["skip", "s", "Skip, with a reason", ANY],
  ["undo", "u", "Undo: open the last answer again", ANY],
  ["keep", "Escape", "Keep an opened answer as it was", ANY],
  ["comment", "c", "Comment", ANY],
  ["flag-1", "x", "First flag", ANY],
  ["flag-2", "o", "Second flag", ANY],
  ["flag-3", "l", "Third flag", ANY],
  ["flag-4", "n", "Fourth flag", ANY],
  ["guideline", "g", "Guideline", READ],
  ["diff", "d", "Words in which two responses differ", READ],
  ["together", "y", "Scroll two responses together", READ],
  ["plain", "p", "As written, without formatting", READ],
  ["wide", "w", "Wide", READ],
  ["help", "?", "This list", READ],
];
const FIXED = [
  ["1 … 9", "Rank of the response, or points of the aspect, at hand", "Rankings and ratings"],
  ["↑ ↓", "The response or aspect before, or after", "Rankings and ratings"],
  ["Page ↑ ↓", "Scroll the responses", READ],
  ["Ctrl Enter", "Done, also from within a text", ANY],
];
const NAMES = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", Escape: "Esc", " ": "Space" };
const KINDS_WITH_OWN = { [PAIR]: "pair", [THUMBS]: "thumbs" };

const usual = Object.fromEntries(ACTIONS.map(([action, key]) => [action, key]));
const group = Object.fromEntries(ACTIONS.map(([action, , , where]) => [action, where]));
const bindings = () => ({ ...usual, ...setting("keys", {}) });
const named = (key) => NAMES[key] ?? (key.length === 1 ? key.toUpperCase() : key);
const singleKeys = () => setting("singleKeys", true);

// The names under which a key may be known: what it types, and where a keyboard with Latin letters has it.
export function namesOf(event) {
  const typed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const place = /^(?:Key|Digit|Numpad)([A-Z0-9])$/.exec(event.code)?.[1].toLowerCase();
  return place && place !== typed && !/^[a-z?]$/.test(typed) ? [typed, place] : [typed];
}

// The action that a key stands for in a question of this kind.
export function actionOf(names, kind) {
  const bound = bindings();
  for (const name of names)
    for (const [action] of ACTIONS) if (bound[action] === name && (KINDS_WITH_OWN[group[action]] ?? kind) === kind) return action;
  return null;
}

export const allowed = (name) => singleKeys() || name.length > 1;

// Writes each action's key on its button.
export function label(root) {
  const bound = bindings();
  for (const mark of root.querySelectorAll("[data-key]")) {
    const key = bound[mark.dataset.key];
    mark.hidden = !key || !allowed(key);
    mark.textContent = key ? named(key) : "";
    mark.closest("button")?.setAttribute("aria-keyshortcuts", mark.hidden ? "" : key);
  }
}

// ---- the list of keys, where they can be changed ----

export class Help {
  #dialog = document.getElementById("help-dialog");
  #list = document.getElementById("key-list");
  #note = document.getElementById("key-note");
  #relabel;
  #waiting = null; // the button of the action that waits for its new key

  constructor(relabel) {
    this.#relabel = relabel;
    const single = this.#dialog.querySelector("#single-keys");
    single.checked = singleKeys();
    single.addEventListener("change", () => this.#change("singleKeys", single.checked));
    this.#dialog.querySelector("#usual-keys").addEventListener("click", () => this.#change("keys", {}));
    this.#dialog.addEventListener("keydown", (event) => this.#take(event));
  }

  open() {
    this.#note.textContent = "";
    this.#draw();
    this.#dialog.showModal();
  }

  #change(name, value) {
    choose(name, value);
    this.#draw();
    this.#relabel();
  }

  #draw() {
    this.#waiting = null;
    const bound = bindings();
    const lines = new Map([[PAIR, []], [THUMBS, []], ["Rankings and ratings", []], [ANY, []], [READ, []]]);
    for (const [action, , words, where] of ACTIONS) lines.get(where).push(this.#line(action, bound[action], words));
    for (const [key, words, where] of FIXED) lines.get(where).push(fixedLine(key, words));
    this.#list.replaceChildren(...[...lines].flatMap(([where, found]) => [made("h3", where), ...found]));
  }

  #line(action, key, words) {
    const line = made("div", "", "key-line");
    const button = made("button", key ? named(key) : "none", "key-button");
    button.type = "button";
    button.setAttribute("aria-label", `${words}: ${key ? named(key) : "no key"}. Change`);
    button.addEventListener("click", () => this.#wait(button, action));
    line.append(made("span", words), button);
    return line;
  }

  #wait(button, action) {
    this.#draw();
    const fresh = [...this.#list.querySelectorAll(".key-button")].find((one) => one.getAttribute("aria-label") === button.getAttribute("aria-label"));
    fresh.textContent = "press a key";
    fresh.focus();
    this.#waiting = action;
    this.#note.textContent = "Press the new key, or Esc to leave it as it is.";
  }

  #take(event) {
    if (!this.#waiting || event.key === "Tab") return;
    event.preventDefault();
    const action = this.#waiting;
    const [name] = namesOf(event);
    if (["Shift", "Control", "Alt", "Meta"].includes(name)) return;
    this.#note.textContent = name === "Escape" ? "" : this.#bind(action, name);
    this.#change("keys", setting("keys", {}));
  }

  // Gives an action its key; another that had it in the same place has none from then on.
  #bind(action, name) {
    const bound = bindings();
    const clash = ACTIONS.find(([other]) => other !== action && bound[other] === name && meet(group[other], group[action]));
    choose("keys", { ...setting("keys", {}), [action]: name, ...(clash && { [clash[0]]: "" }) });
    return clash ? `${named(name)} no longer stands for "${clash[2]}".` : "";
  }
}

const meet = (one, other) => one === other || !(one in KINDS_WITH_OWN) || !(other in KINDS_WITH_OWN);

function fixedLine(key, words) {
  const line = made("div", "", "key-line");
  line.append(made("span", words), made("kbd", key));
  return line;
}

function made(tag, text, name = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
}
