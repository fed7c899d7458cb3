// From a key to what it does. A text that is typed in, a button that has the focus and whatever scrolls come before the page's own keys.

import { actionOf, allowed, namesOf } from "./keys.js";

const SCROLLS = { PageDown: 0.9, PageUp: -0.9, ArrowDown: 0.15, ArrowUp: -0.15 }; // share of the height

// desk() gives what is on the screen, or null; scroll(share) moves the responses.
export function listen({ stage, desk, guide, scroll }) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) done(event, stage);
    else if (!event.ctrlKey && !event.metaKey && !event.altKey && !isTaken(event, stage, guide)) answerKey(event, desk(), scroll);
  });
}

function answerKey(event, desk, scroll) {
  if (event.repeat && !(event.key in SCROLLS)) return; // a key that is held answers once
  const names = namesOf(event).filter(allowed);
  if (names.some((name) => desk?.kind.onKey(name)) || press(actionOf(names, desk?.question.kind))) event.preventDefault();
  else if (event.key in SCROLLS) {
    scroll(SCROLLS[event.key]);
    event.preventDefault();
  }
}

function press(action) {
  const button = action && document.querySelector(`[data-action="${action === "tie" ? "lean-4" : action}"]`);
  if (!button || button.closest("[hidden]")) return false;
  button.click();
  return true;
}

function done(event, stage) {
  event.preventDefault();
  if (!press("submit")) leaveText(stage);
}

// Whether a key was meant for something smaller than the page.
function isTaken({ target, key }, stage, guide) {
  if (target.matches("textarea, select, input:not([type=radio], [type=checkbox])")) {
    if (key === "Escape") leaveText(stage);
    return true;
  }
  if (key === "Escape" && guide.has(target)) {
    guide.close();
    return true;
  }
  if (key in SCROLLS && target.closest("[data-scroller], .guide-body")) return true;
  return [" ", "Enter"].includes(key) && target.closest("button, a, summary") !== null;
}

function leaveText(stage) {
  stage.querySelector("#ask")?.focus({ preventScroll: true });
}
