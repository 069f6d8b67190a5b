"use strict";
// What the page knows: the photos of its JSON blocks, and which of them are shown, in what order. No document here but
// the blocks. Names and labels are the user's text; they are only ever set as text.

const STATUSES = ["failed", "unknown", "ok", "vanished"]; // in the order that looks for trouble
const about = JSON.parse(document.getElementById("all").textContent);
const photos = [];
const labels = []; // every label once; photos know its number
const numbers = new Map();
const wanted = { words: [], statuses: new Set(), labels: new Set(), order: "unsure" };
let ranks = []; // by number of the label: its place in the alphabet

function numbered(label) {
  if (!numbers.has(label)) numbers.set(label, labels.push(label) - 1);
  return numbers.get(label);
}

/** Text as it is compared: é is é however a file system writes it. */
function folded(text) {
  return text.normalize("NFKC").toLowerCase();
}

/** Text without anything that hides or reorders what stands around it; a byte that is not UTF-8 shows as \xe9. */
function plain(text) {
  return text.replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, (sign) => {
    const code = sign.codePointAt(0);
    if (code >= 0xdc80 && code <= 0xdcff) return `\\x${(code - 0xdc00).toString(16)}`;
    return { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[sign] ?? `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

/** Take the photos of one block, and let go of its text. */
function take(block) {
  const { names, photos: rows } = JSON.parse(block.textContent);
  block.remove();
  const own = new Map(); // label numbers are the block's; here they become the page's
  const number = (label) => own.get(label) ?? own.set(label, numbered(names[label])).get(label);
  for (const [folder, name, status, width, height, model, guesses, answer, kind, message] of rows) {
    const path = names[folder] + name;
    for (let i = 0; i < guesses.length; i += 2) guesses[i] = number(guesses[i]);
    let [label, score] = guesses.length ? guesses : [-1, null];
    if (answer && answer[0] >= 0) [label, score] = [number(answer[0]), answer[1]];
    const details = answer ? names[answer[2]] : "";
    photos.push({
      number: photos.length,
      path,
      name,
      status: STATUSES.indexOf(names[status]),
      width,
      height,
      model: names[model],
      guesses,
      label,
      score,
      answer: answer ? `${answer[0] < 0 ? "unknown" : labels[label]}${details}` : null,
      error: kind === undefined ? null : { kind: names[kind], message: names[message] },
      text: folded(label < 0 ? path : `${path}\n${labels[label]}${details}`),
    });
  }
}

/** Read all blocks, a few milliseconds at a time, so that the page stays alive; told how many photos there are. */
async function read(told) {
  let since = performance.now();
  for (const block of document.querySelectorAll("script.photos")) {
    take(block);
    if (performance.now() - since < 12) continue;
    told(photos.length);
    await new Promise((go) => setTimeout(go));
    since = performance.now();
  }
  const words = new Intl.Collator("en", { numeric: true });
  const alphabet = labels.map((_, i) => i).sort((a, b) => words.compare(labels[a], labels[b]) || a - b);
  alphabet.forEach((label, place) => (ranks[label] = place));
  if (about.scores === "logits") spread();
}

// Logits have no ends of their own: bars reach from the lowest to the highest score in the report.
let [lowest, highest] = [0, 1];

function spread() {
  [lowest, highest] = [Infinity, -Infinity];
  for (const { guesses } of photos) {
    for (let i = 1; i < guesses.length; i += 2) {
      lowest = Math.min(lowest, guesses[i]);
      highest = Math.max(highest, guesses[i]);
    }
  }
}

/** How full a bar is, from 0 to 1. */
function share(score) {
  return highest > lowest ? (score - lowest) / (highest - lowest) : 1;
}

/** A score in words: per cent, or the number where it is none. */
function said(score) {
  if (about.scores === "logits") return score.toFixed(2);
  return `${(100 * score).toFixed(score < 0.0995 ? 1 : 0)}\u202f%`;
}

const unlabelled = (a, b) => (a.label < 0) - (b.label < 0); // what has no score comes last
const ORDERS = {
  unsure: (a, b) => a.status - b.status || a.score - b.score,
  rising: (a, b) => unlabelled(a, b) || a.score - b.score,
  falling: (a, b) => unlabelled(a, b) || b.score - a.score,
  label: (a, b) => unlabelled(a, b) || ranks[a.label] - ranks[b.label] || a.score - b.score,
  path: (a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0),
};

/** What is shown; and how many photos each status and each label would show under the other filters. */
function choose() {
  const shown = [];
  const byStatus = new Array(STATUSES.length).fill(0);
  const byLabel = new Array(labels.length).fill(0);
  for (const photo of photos) {
    if (!wanted.words.every((word) => photo.text.includes(word))) continue;
    const status = !wanted.statuses.size || wanted.statuses.has(photo.status);
    const label = !wanted.labels.size || wanted.labels.has(photo.label);
    if (label) byStatus[photo.status]++;
    if (status && photo.label >= 0) byLabel[photo.label]++;
    if (status && label) shown.push(photo);
  }
  shown.sort((a, b) => ORDERS[wanted.order](a, b) || a.number - b.number);
  return { shown, byStatus, byLabel };
}
