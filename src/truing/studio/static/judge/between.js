// What stands in the place of a question: why there is none, what becomes of the answers, and the ways on.

export function whyNone(hand, queue) {
  const troubles = [hand.trouble, queue.trouble].filter(Boolean);
  if (troubles.some((trouble) => trouble.signedOut)) return "out";
  if (hand.nothing) return hand.nothing.why;
  return troubles.length ? "offline" : "wait";
}

export function showBetween(stage, why, hand) {
  stage.replaceChildren(document.getElementById(`nothing-${why}`).content.cloneNode(true));
  const box = stage.querySelector(".between");
  if (why === "out") box.append(row(link("/sign-in?next=/judge", "Sign in", "button primary")));
  else if (hand.nothing) box.append(row(...waysOn(hand)));
  box.querySelector("h1").focus();
}

function waysOn(hand) {
  const again = Object.assign(document.createElement("button"), { type: "button", className: "button", textContent: "Look again" });
  again.addEventListener("click", () => hand.lookAgain());
  const ways = [again, link("/judge/last", "Your last answers", "button plain")];
  const leaveBy = hand.nothing.leave_by;
  return leaveBy ? [link(leaveBy, "Finish and go back to where you came from", "button primary"), ...ways] : ways;
}

function link(address, words, name) {
  return Object.assign(document.createElement("a"), { href: address, textContent: words, className: name });
}

function row(...items) {
  const box = document.createElement("div");
  box.className = "row";
  box.append(...items);
  return box;
}
