// Keeps parts of a page fresh: every element with data-live="/address" is fetched again every two seconds while the tab is seen.
// A fragment that holds data-reload has come to its end: the page is loaded again, without what its address said of the beginning.
// One that holds data-rest has come to its end, too, and stays as it is.

const EVERY_MS = 2000;

function place(box, html) {
  const active = document.activeElement;
  const held = box.contains(active) ? active.id || active.getAttribute("href") || active.dataset.copy : null;
  box.innerHTML = html;
  if (!held) return;
  const again = [...box.querySelectorAll("a, button")].find((one) => [one.id, one.getAttribute("href"), one.dataset.copy].includes(held));
  if (again) again.focus({ preventScroll: true });
}

function keep(box) {
  let shown = null;
  async function look() {
    if (document.hidden) return;
    try {
      const answer = await fetch(box.dataset.live, { headers: { accept: "text/html" } });
      if (answer.redirected || answer.status === 401) { location.reload(); return; }
      if (!answer.ok) throw new Error(String(answer.status));
      const html = await answer.text();
      delete box.dataset.stale;
      if (html !== shown) {
        place(box, html);
        shown = html;
        if (box.querySelector("[data-rest]")) clearInterval(ticking);
        if (box.querySelector("[data-reload]")) { location.replace(location.pathname); return; }
      }
    } catch (error) {
      if (!(error instanceof TypeError) && !/^\d+$/.test(error.message)) throw error;
      box.dataset.stale = "1"; // no connection, or a server under way: the next look tells
    }
  }
  let going = false;
  const turn = async () => { if (!going) { going = true; try { await look(); } finally { going = false; } } };
  const ticking = setInterval(turn, EVERY_MS);
  document.addEventListener("visibilitychange", turn);
}

for (const box of document.querySelectorAll("[data-live]")) keep(box);
