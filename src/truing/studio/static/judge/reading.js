// Ways of reading: rendered or as written, wide or narrow, two texts that scroll together, and the words in which they differ.

import { compare, first, second } from "./diff.js";
import { reachSideways } from "../sideways.js";
import { toast } from "../toast.js";
import { choose, setting } from "./settings.js";

const LASTING = ["plain", "wide", "together"];

export class Reading {
  #page;
  #stage;
  #observer = new ResizeObserver((entries) => entries.forEach(({ target }) => letFocus(target)));

  constructor(page, stage) {
    this.#page = page;
    this.#stage = stage;
  }

  show() {
    this.#observer.disconnect();
    for (const body of this.#stage.querySelectorAll("[data-scroller]")) this.#observer.observe(body);
    reachSideways(this.#stage);
    for (const name of LASTING) this.#draw(name, setting(name, false));
    const prompt = this.#stage.querySelector(".prompt-body");
    prompt.scrollTop = prompt.scrollHeight; // of a conversation the last turn is answered
    scrollTogether([...this.#stage.querySelectorAll(".kind-pair .response .body")], () => setting("together", false));
  }

  toggle(name) {
    if (name === "diff") return this.#compare();
    choose(name, !setting(name, false));
    return this.#draw(name, setting(name, false));
  }

  // By keys, all texts of the question move at once.
  scroll(share) {
    const bodies = [...this.#stage.querySelectorAll(".response .body, .responses.many")].filter(scrolls);
    for (const body of bodies) body.scrollBy({ top: share * body.clientHeight });
    if (!bodies.length) window.scrollBy({ top: share * window.innerHeight });
  }

  #draw(name, on) {
    this.#page.classList.toggle(name, on);
    this.#press(name, on);
    if (name !== "plain") return;
    for (const text of this.#stage.querySelectorAll(".rendered")) text.hidden = on;
    for (const text of this.#stage.querySelectorAll(".raw")) text.hidden = !on;
  }

  #press(name, on) {
    this.#stage.querySelector(`[data-action="${name}"]`)?.setAttribute("aria-pressed", String(on));
  }

  #compare() {
    const responses = [...this.#stage.querySelectorAll(".response")];
    const shown = this.#stage.querySelectorAll(".compared");
    this.#press("diff", shown.length === 0);
    if (shown.length) {
      for (const text of shown) text.remove();
      return this.#draw("plain", setting("plain", false));
    }
    const runs = compare(...responses.map((one) => one.querySelector(".raw").textContent));
    if (!runs) return this.#tooLong();
    responses.forEach((one, i) => putCompared(one, i ? second(runs) : first(runs)));
    return undefined;
  }

  #tooLong() {
    this.#press("diff", false);
    toast("These two are too long to be compared word by word");
  }
}

function putCompared(response, nodes) {
  const box = document.createElement("div");
  box.className = "compared";
  box.dir = "auto";
  box.append(...nodes);
  for (const text of response.querySelectorAll(".rendered, .raw")) text.hidden = true;
  response.querySelector(".body").append(box);
}

const scrolls = (body) => body.scrollHeight > body.clientHeight + 1 && getComputedStyle(body).overflowY !== "visible";

// What scrolls can be reached by Tab; what doesn't is no stop on the way.
function letFocus(body) {
  if (!scrolls(body)) return body.removeAttribute("tabindex");
  body.tabIndex = 0;
  body.setAttribute("role", "group");
  body.setAttribute("aria-label", body.closest("section").querySelector("h2").textContent.trim());
  return undefined;
}

function scrollTogether(bodies, wanted) {
  let led = null; // the body that was moved by us and not by a person
  for (const body of bodies)
    body.addEventListener("scroll", () => {
      if (led === body) led = null;
      else if (wanted()) for (const other of bodies) if (other !== body) led = follow(body, other);
    });
}

function follow(body, other) {
  const share = body.scrollTop / Math.max(1, body.scrollHeight - body.clientHeight);
  const top = Math.round(share * (other.scrollHeight - other.clientHeight));
  if (Math.abs(other.scrollTop - top) < 1) return null;
  other.scrollTop = top;
  return other;
}
