// What every page needs: the switch of colours, menus that close, forms that are sent once, and what is copied.

import { reachSideways } from "./sideways.js";
import { toast } from "./toast.js";

const THEMES = ["auto", "light", "dark", "contrast"];

function switchTheme(button) {
  const root = document.documentElement;
  const next = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
  root.dataset.theme = next;
  document.cookie = `truing_theme=${next}; path=/; max-age=31536000; samesite=lax`;
  button.setAttribute("aria-label", `Change the colours: ${next} now`);
  button.title = `Colours: ${next}`;
  toast(`Colours: ${next}`, 2);
}

for (const button of document.querySelectorAll("[data-theme-switch]")) button.addEventListener("click", () => switchTheme(button));

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) { menu.open = false; menu.querySelector("summary").focus(); }
});

// A second click on a button that sends does nothing, and a form may ask first.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.ask && !window.confirm(form.dataset.ask)) { event.preventDefault(); return; }
  if (form.dataset.sent) { event.preventDefault(); return; }
  if (form.method === "post") { form.dataset.sent = "1"; setTimeout(() => delete form.dataset.sent, 3000); }
});

reachSideways(document);

// On a narrow screen the rooms are a strip: where one is, is in view.
document.querySelector(".rooms [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// Copy a secret that is shown once, or a command; also from a part of the page that came later.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.querySelector(button.dataset.copy).textContent.trim());
  toast("Copied", 2);
});
