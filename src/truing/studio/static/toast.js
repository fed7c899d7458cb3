// Short messages that come and go. They are read out, and none of them is needed to go on.

export function toast(words, seconds = 4) {
  const box = document.createElement("div");
  box.className = "toast";
  box.textContent = words;
  document.getElementById("toasts").append(box);
  setTimeout(() => box.remove(), seconds * 1000);
}
