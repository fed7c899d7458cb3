// What a person chose for this browser: their keys and their ways of reading. A browser that keeps nothing forgets it with the page.

const NAME = "truing:settings";
let chosen = stored();

function stored() {
  try {
    return JSON.parse(localStorage.getItem(NAME)) ?? {};
  } catch {
    return {}; // storage is switched off, or somebody else wrote there
  }
}

export const setting = (name, otherwise) => chosen[name] ?? otherwise;

export function choose(name, value) {
  chosen = { ...chosen, [name]: value };
  try {
    localStorage.setItem(NAME, JSON.stringify(chosen));
  } catch {
    // the choice holds until the page is left
  }
}
