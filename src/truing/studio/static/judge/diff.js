// What two texts have in common, word by word: the longest common subsequence of their words. The space after a word belongs to it
// and may differ.

const MOST_CELLS = 6_000_000; // of the table of lengths; beyond it a comparison would make the page wait

const SAME = "same";
const GONE = "gone"; // only in the first text
const NEW = "new"; // only in the second

// Runs in reading order, each with its text in the first, in the second and in both as one; null if the texts are too long to be compared.
export function compare(before, after) {
  const [a, b] = [words(before), words(after)];
  const head = shared(a, b, (list, i) => list[i]);
  const [restA, restB] = [a.slice(head), b.slice(head)];
  const tail = shared(restA, restB, (list, i) => list[list.length - 1 - i]);
  const [middleA, middleB] = [restA.slice(0, restA.length - tail), restB.slice(0, restB.length - tail)];
  if (middleA.length * middleB.length > MOST_CELLS) return null;
  return joined([
    ...a.slice(0, head).map((word, i) => same(word, b[i])),
    ...walk(middleA, middleB),
    ...restA.slice(middleA.length).map((word, i) => same(word, restB[middleB.length + i])),
  ]);
}

// Nodes that show the first text, what only it has marked as taken away; the second, what only it has marked as added; both in one.
export const first = (runs) => runs.filter((run) => run.kind !== NEW).flatMap((run) => node(run, run.before));
export const second = (runs) => runs.filter((run) => run.kind !== GONE).flatMap((run) => node(run, run.after));
export const both = (runs) => runs.flatMap((run) => node(run, run.both));

// The space after the last word is not marked: a line under it would look like a word of its own.
function node({ kind }, text) {
  if (kind === SAME) return [text];
  const element = document.createElement(kind === GONE ? "del" : "ins");
  element.textContent = text.trimEnd() || text;
  return [element, text.slice(element.textContent.length)];
}

const words = (text) => text.match(/\s+|[^\s]+\s*/gu) ?? [];
const bare = (word) => word.trimEnd();
const same = (before, after) => ({ kind: SAME, before, after, both: before.length > after.length ? before : after });
const gone = (word) => ({ kind: GONE, before: word, after: "", both: word });
const added = (word) => ({ kind: NEW, before: "", after: word, both: word });

function shared(a, b, at) {
  const most = Math.min(a.length, b.length);
  let n = 0;
  while (n < most && bare(at(a, n)) === bare(at(b, n))) n += 1;
  return n;
}

function walk(a, b) {
  const lengths = table(a, b);
  const width = b.length + 1;
  const steps = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && bare(a[i]) === bare(b[j])) steps.push(same(a[i++], b[j++]));
    else if (j === b.length || (i < a.length && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])) steps.push(gone(a[i++]));
    else steps.push(added(b[j++]));
  }
  return steps;
}

// lengths[i * (|b| + 1) + j]: how many words the rest of a from i and the rest of b from j have in common, in order.
function table(a, b) {
  const width = b.length + 1;
  const lengths = new Uint16Array((a.length + 1) * width);
  const [bareA, bareB] = [a.map(bare), b.map(bare)];
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      lengths[i * width + j] =
        bareA[i] === bareB[j] ? lengths[(i + 1) * width + j + 1] + 1 : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
  return lengths;
}

function joined(steps) {
  const runs = [];
  for (const step of steps) {
    const last = runs[runs.length - 1];
    if (last?.kind === step.kind) for (const text of ["before", "after", "both"]) last[text] += step[text];
    else runs.push({ ...step });
  }
  return runs;
}
