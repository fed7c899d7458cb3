// What goes with every answer: flags, a comment, or a reason to skip.

export function mountRemarks(stage, { changed }) {
  const flags = [...stage.querySelectorAll("[data-flag]")];
  const box = stage.querySelector("#comment-box");
  const comment = stage.querySelector("#comment");
  const opener = stage.querySelector('[data-action="comment"]');
  const raised = (flag) => flag.getAttribute("aria-pressed") === "true";

  function open(on) {
    box.hidden = !on;
    opener.setAttribute("aria-expanded", String(on));
  }

  for (const flag of flags)
    flag.addEventListener("click", () => {
      flag.setAttribute("aria-pressed", String(!raised(flag)));
      changed();
    });
  comment.addEventListener("input", changed);

  return {
    read() {
      const words = comment.value.trim();
      const up = flags.filter(raised).map((flag) => flag.dataset.flag);
      return { ...(up.length && { flags: up }), ...(words && { comment: words }) };
    },
    write({ flags: up = [], comment: words = "" }) {
      for (const flag of flags) flag.setAttribute("aria-pressed", String(up.includes(flag.dataset.flag)));
      comment.value = words;
      open(words !== "");
    },
    toggleComment() {
      const wanted = box.hidden || comment.value !== ""; // what has words in it stays open, and is gone on with
      open(wanted);
      if (wanted) comment.focus();
    },
  };
}

// The reasons to skip, in a dialog with a number for each; `skip` gets the one that was chosen.
export function mountSkip(skip) {
  const dialog = document.getElementById("skip-dialog");
  const reasons = [...dialog.querySelectorAll("[data-reason]")];
  const own = dialog.querySelector("#own-reason");
  const choose = (reason) => {
    dialog.close();
    skip(reason);
  };
  for (const button of reasons) button.addEventListener("click", () => choose(button.dataset.reason));
  dialog.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (own.value.trim()) choose(own.value.trim());
  });
  dialog.addEventListener("keydown", (event) => {
    const reason = reasons[Number(event.key) - 1];
    if (!reason || event.target === own || event.repeat) return;
    event.preventDefault();
    choose(reason.dataset.reason);
  });
  return () => {
    own.value = "";
    dialog.showModal();
  };
}
