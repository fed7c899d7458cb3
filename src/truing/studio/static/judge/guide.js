// The guideline beside the question. It opens itself when its version is newer than the one that was seen last.

import { choose, setting } from "./settings.js";

export class Guide {
  #panel = document.getElementById("guide");
  #shown = null; // {set, version}

  show({ set, guideline }) {
    if (this.#shown?.set === set && this.#shown.version === guideline.version) return this.#expand();
    this.#shown = { set, version: guideline.version };
    this.#panel.querySelector(".version").textContent = `v${guideline.version}`;
    this.#panel.querySelector(".guide-body").innerHTML = guideline.html; // safe: made by the studio's own renderer
    const isNew = guideline.version > (this.#seen()[set] ?? 0);
    document.getElementById("guide-new").hidden = !isNew;
    if (isNew) this.open({ focus: false });
    else if (!guideline.version) this.#panel.hidden = true;
    return this.#expand();
  }

  toggle() {
    if (this.#panel.hidden) this.open({ focus: true });
    else this.close();
  }

  open({ focus }) {
    this.#panel.hidden = false;
    if (this.#shown) choose("guidelines", { ...this.#seen(), [this.#shown.set]: this.#shown.version });
    this.#expand();
    if (focus) this.#panel.querySelector("h2").focus();
  }

  close() {
    const inside = this.#panel.contains(document.activeElement);
    this.#panel.hidden = true;
    this.#expand();
    if (inside) document.querySelector('[data-action="guideline"]')?.focus();
  }

  has(element) {
    return this.#panel.contains(element);
  }

  #expand() {
    document.querySelector('[data-action="guideline"]')?.setAttribute("aria-expanded", String(!this.#panel.hidden));
  }

  #seen() {
    return setting("guidelines", {});
  }
}
