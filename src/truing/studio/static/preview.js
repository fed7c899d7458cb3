// Shows a textarea's markdown as it will read: data-preview names the element that shows it.

function follow(area) {
  const box = document.querySelector(area.dataset.preview);
  let waiting = null;
  let newest = 0;
  async function show() {
    const mine = ++newest;
    if (!area.value.trim()) { box.hidden = true; return; }
    const body = new URLSearchParams({ text: area.value });
    const answer = await fetch("/manage/preview", { method: "POST", body }).catch(() => null);
    if (mine !== newest || !answer || !answer.ok) return;
    box.innerHTML = await answer.text();
    box.hidden = false;
  }
  area.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(show, 400); });
  area.addEventListener("focus", show, { once: true });
}

for (const area of document.querySelectorAll("textarea[data-preview]")) follow(area);
