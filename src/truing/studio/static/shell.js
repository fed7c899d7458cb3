// What every page needs: the switch of colours, menus that close, forms that are sent once, and short messages.

const THEMES = ["auto", "light", "dark", "contrast"];

export function toast(words, { seconds = 4, action = null } = {}) {
  const box = document.createElement("div");
  box.className = "toast";
  box.textContent = words;
  if (action) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = action.name;
    button.addEventListener("click", () => { box.remove(); action.run(); });
    box.append(" ", button);
  }
  document.getElementById("toasts").append(box);
  setTimeout(() => box.remove(), seconds * 1000);
}

function switchTheme(button) {
  const root = document.documentElement;
  const next = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
  root.dataset.theme = next;
  document.cookie = `truing_theme=${next}; path=/; max-age=31536000; samesite=lax`;
  button.setAttribute("aria-label", `Change the colours: ${next} now`);
  button.title = `Colours: ${next}`;
  toast(`Colours: ${next}`, { seconds: 2 });
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

// Copy a secret that is shown once.
for (const button of document.querySelectorAll("[data-copy]"))
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.querySelector(button.dataset.copy).textContent.trim());
    toast("Copied", { seconds: 2 });
  });
