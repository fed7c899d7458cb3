// Code and tables that are wider than their place scroll sideways: those can be reached by Tab, the others are no stop on the way.

const watcher = new ResizeObserver((entries) => entries.forEach(({ target }) => letFocus(target)));

function letFocus(box) {
  if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
  else box.removeAttribute("tabindex");
}

export function reachSideways(root) {
  for (const box of root.querySelectorAll(".md pre, .md table")) watcher.observe(box);
}
