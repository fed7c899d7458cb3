// Questions that one press answers: pairs and thumbs.

export function mountPress(stage, { answer }) {
  for (const button of stage.querySelectorAll("[data-press]")) {
    button.addEventListener("click", () => answer(JSON.parse(button.dataset.press)));
    for (const [event, leans] of [["pointerenter", true], ["focus", true], ["pointerleave", false], ["blur", false]])
      button.addEventListener(event, () => lean(stage, leans ? button.dataset.side : ""));
  }
  return {
    read: () => ({}),
    write: (given) => markPressed(stage, given),
    onKey: () => false,
  };
}

// Which of the two responses a button speaks for is shown while it is looked at.
function lean(stage, side) {
  for (const response of stage.querySelectorAll(".response")) response.classList.toggle("leaned-to", response.dataset.place === side);
}

export function markPressed(stage, given) {
  for (const button of stage.querySelectorAll("[data-press]")) {
    const says = Object.entries(JSON.parse(button.dataset.press)).every(([name, value]) => given[name] === value);
    button.setAttribute("aria-pressed", String(says));
  }
}
