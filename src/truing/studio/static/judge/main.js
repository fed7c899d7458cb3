// The judging page: shows one question after the other, and sees to it that no answer is lost.
//
// An answer goes to the queue (queue.js), which keeps it until the studio has it; the next question is at hand already (hand.js). What a
// kind of question needs stands in press.js, ranking.js, rating.js and edit.js: each gives read, write, onKey and, where an answer has
// parts, submit.

import { mountRemarks, mountSkip } from "./answering.js";
import { Bar } from "./bar.js";
import { showBetween, whyNone } from "./between.js";
import { Clock } from "./clock.js";
import { newKey } from "./door.js";
import { Drafts } from "./drafts.js";
import { mountEdit } from "./edit.js";
import { Guide } from "./guide.js";
import { Hand } from "./hand.js";
import { Help, label } from "./keys.js";
import { Last } from "./last.js";
import { listen } from "./listen.js";
import { mountPress } from "./press.js";
import { Queue } from "./queue.js";
import { mountRanking } from "./ranking.js";
import { mountRating } from "./rating.js";
import { Reading } from "./reading.js";
import { toast } from "../toast.js";

const GUARD = 350; // ms after a question appears in which nobody can have read it: a second click or a key that bounced is no answer
const MOUNT = { pair: mountPress, thumbs: mountPress, ranking: mountRanking, rating: mountRating, edit: mountEdit };

const page = document.getElementById("judge");
const stage = document.getElementById("stage");
const me = page.dataset.me;
const queue = new Queue(me);
const hand = new Hand(queue);
const last = new Last(queue);
const drafts = new Drafts(me);
const clock = new Clock();
const bar = new Bar();
const reading = new Reading(page, stage);
const guide = new Guide();
const help = new Help(() => label(document));
const openSkip = mountSkip((reason) => give({ skip: reason }));
const tabs = new BroadcastChannel(`truing:${me}`);

let desk = null; // what is on the screen: {question, kind, remarks, since, changing, back}; null while there is no question
let between = ""; // which message stands there instead
let progress = null; // {today, left, seconds}

// ---- what is on the screen ----

function show(question, changing = null, back = 0) {
  leave();
  stage.innerHTML = question.html; // safe: made by the studio's own templates and renderer of markdown
  const hooks = { changed, answer: give };
  const draft = changing ? null : drafts.find(question);
  desk = { question, changing, back, since: performance.now(), remarks: mountRemarks(stage, hooks), kind: MOUNT[question.kind](stage, hooks) };
  fillIn(changing ? changing.answer : draft?.answer);
  clock.start(changing ? {} : (question.spent ?? draft ?? {}));
  if (changing) noteChange(changing);
  reading.show();
  label(document);
  drawUndo();
  guide.show(question);
  document.getElementById("set-name").textContent = question.set;
  between = "";
  stage.querySelector("#ask").focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function leave() {
  if (desk && !desk.changing) desk.question.spent = clock.read();
  desk = null;
}

function fillIn(answer) {
  if (!answer) return;
  desk.kind.write(answer);
  desk.remarks.write(answer);
}

function noteChange({ answer }) {
  const note = stage.querySelector("#change-note");
  note.hidden = false;
  note.querySelector("span").textContent = answer.skip ? `You skipped this one: ${answer.skip}.` : "This is how you answered. Answer again to change it.";
}

// The last answer stands on the button that opens it again: one press is quickly made.
function drawUndo() {
  const words = stage.querySelector('[data-action="undo"] .last-words');
  words.textContent = desk.changing ? "" : last.words;
}

function next() {
  const question = hand.first;
  if (question) show(question);
  else showNone();
}

function showNone() {
  const why = whyNone(hand, queue);
  if (why === between) return;
  leave();
  between = why;
  showBetween(stage, why, hand);
}

// ---- answers ----

function changed() {
  if (!desk || desk.changing) return;
  drafts.note(desk.question.claim, { answer: { ...desk.kind.read(), ...desk.remarks.read() }, ...clock.read() });
}

function give(part) {
  if (!desk || performance.now() - desk.since < GUARD) return;
  const { question, changing } = desk;
  const answer = { ...part, ...desk.remarks.read() };
  const body = { answer, ...clock.read(), key: newKey(), guideline_version: question.guideline.version };
  if (question.claim) queue.add("submit", { claim: question.claim, ...body });
  else queue.add("supersede", { judgement: changing.judgement, ...body });
  if (changing) last.changed(changing, answer, body.key);
  else finish(question, answer, body.key);
  last.words = wordsOf(part);
  desk = null;
  if (changing) toast("Changed");
  next();
}

function finish(question, answer, key) {
  drafts.done(question.claim);
  hand.drop(question.claim);
  last.add(question, answer, key);
  tabs.postMessage({ answered: question.claim });
  if (!progress) return;
  progress = { ...progress, today: progress.today + 1, left: Math.max(0, progress.left - 1) };
  bar.far(progress);
}

function wordsOf(part) {
  const button = [...stage.querySelectorAll("[data-press]")].find((one) => one.dataset.press === JSON.stringify(part));
  return part.skip ? "skipped" : (button?.dataset.words ?? "");
}

let undoing = false;

async function undo() {
  if (undoing) return;
  undoing = true;
  const back = desk?.changing ? desk.back + 1 : 0;
  try {
    const item = await last.at(back);
    if (!item) toast(back ? "That was the last one that can be changed" : "There is nothing to undo yet");
    else if (!item.question.claim && !item.sent) toast("This change is still on its way: try again in a moment");
    else show(item.question, item, back);
  } catch {
    toast("Earlier answers can be opened when the network is back");
  }
  undoing = false;
}

function keep() {
  if (desk?.changing) next();
}

tabs.addEventListener("message", ({ data: { answered } }) => {
  hand.drop(answered);
  if (desk?.question.claim !== answered || desk.changing) return;
  toast("You answered this one in another tab");
  desk = null;
  next();
  hand.fill();
});

// ---- what the other parts report ----

queue.addEventListener("change", ({ detail }) => {
  if (detail.waiting || last.some) bar.answers({ ...detail, kept: queue.kept });
  if (!desk) showNone();
});
queue.addEventListener("refused", ({ detail: { trouble } }) => toast(`An answer was not taken: ${trouble.message}. ${trouble.fix ?? ""}`, 12));
drafts.addEventListener("saved", () => bar.say("draft saved ✓"));
hand.addEventListener("change", () => {
  progress = hand.progress ?? progress;
  hand.progress = null;
  if (progress) bar.far(progress);
  if (!desk) next();
});

// ---- buttons and keys ----

const DO = {
  undo,
  keep,
  skip: openSkip,
  help: () => help.open(),
  comment: () => desk.remarks.toggleComment(),
  submit: () => desk.kind.submit(),
  guideline: () => guide.toggle(),
  "guideline-close": () => guide.close(),
  diff: () => reading.toggle("diff"),
  together: () => reading.toggle("together"),
  plain: () => reading.toggle("plain"),
  wide: () => reading.toggle("wide"),
};

document.addEventListener("click", (event) => {
  DO[event.target.closest("[data-action]")?.dataset.action]?.();
  event.target.closest("[data-close]")?.closest("dialog").close();
});
stage.addEventListener("submit", (event) => event.preventDefault());

listen({ stage, desk: () => desk, guide, scroll: (share) => reading.scroll(share) });

// ---- begin ----

async function begin() {
  queue.send();
  const change = new URLSearchParams(location.search).get("change");
  if (change) {
    history.replaceState(null, "", "/judge");
    try {
      const item = await last.fetch(change);
      show(item.question, item);
    } catch (trouble) {
      toast(trouble.message, 8);
    }
  }
  hand.fill();
}

begin();
