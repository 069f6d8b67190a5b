// The page: a grid of which only the rows in sight are in the document, filters, the opened photo, keys.

const $ = (id) => document.getElementById(id);
const [grid, cards, view] = [$("grid"), $("cards"), $("view")];
const AROUND = 2; // rows drawn above and below what is in sight
const MOST_CHOICES = 200; // labels listed at once
const MOST_PRINTED = 200;
// The grid as measured, in pixels. covered: by the bar above it. tallest: browsers cut elements at 17 to 33 million.
const SHAPE = { columns: 1, pitch: 250, gap: 16, covered: 0, tallest: 15e6 };

let found = { shown: [], byStatus: [], byLabel: [] };
let drawn = { from: 0, to: 0 }; // the cards in the document
let current = 0; // the card that keys move from
let opened = 0; // the card that is shown large
let printing = false;

function counted(number, noun = "photo") {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

function copied(template) {
  return $(template).content.firstElementChild.cloneNode(true);
}

function element(name, text, kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = kind;
  return made;
}

// cards

function picture(photo) {
  const data = $(`p${photo.number}`);
  const frame = document.createDocumentFragment();
  if (data !== null) {
    const image = new Image();
    image.src = `data:image/jpeg;base64,${data.textContent}`;
    image.alt = plain(photo.name);
    frame.append(image);
  } else if (photo.error !== null) {
    frame.append(element("strong", photo.error.kind.replaceAll("_", " ")), element("span", plain(photo.error.message)));
  } else {
    frame.append(element("span", STATUSES[photo.status] === "vanished" ? "it is there no more" : "no picture"));
  }
  if (!["ok", "failed"].includes(STATUSES[photo.status])) frame.append(element("span", STATUSES[photo.status], "badge"));
  return frame;
}

function guessed(into, label, score) {
  into.querySelector(".label").textContent = plain(labels[label]);
  into.querySelector(".score").textContent = said(score);
  into.querySelector(".meter > span").style.width = `${100 * share(score)}%`;
}

function card(index) {
  const photo = found.shown[index];
  const item = copied("card");
  const button = item.firstElementChild;
  const name = plain(photo.name);
  button.classList.add(STATUSES[photo.status]);
  button.dataset.index = index;
  button.tabIndex = index === current ? 0 : -1;
  button.querySelector(".picture").append(picture(photo));
  button.querySelector(".name").textContent = button.title = name;
  let what = photo.error === null ? "" : `${photo.error.kind}: ${plain(photo.error.message)}`;
  if (photo.label >= 0) {
    guessed(button, photo.label, photo.score);
    what = `${plain(labels[photo.label])}, ${said(photo.score)}`;
  } else {
    button.querySelector(".label").textContent = STATUSES[photo.status];
  }
  button.setAttribute("aria-label", `${name}: ${STATUSES[photo.status] === "ok" ? "" : `${STATUSES[photo.status]}, `}${what}`);
  item.ariaSetSize = found.shown.length;
  item.ariaPosInSet = index + 1;
  return item;
}

const button = (index) => cards.children[index - drawn.from]?.firstElementChild ?? null;

// the grid

/** Columns and row height are the stylesheet's; here they are only measured. */
function measure() {
  const style = getComputedStyle(cards);
  SHAPE.columns = Math.max(1, style.gridTemplateColumns.split(" ").length);
  SHAPE.gap = parseFloat(style.rowGap) || 0;
  SHAPE.covered = document.querySelector(".bar").offsetHeight;
  if (cards.firstElementChild) SHAPE.pitch = cards.firstElementChild.getBoundingClientRect().height + SHAPE.gap;
}

const rows = () => Math.ceil(found.shown.length / SHAPE.columns);
const fullHeight = () => Math.max(0, rows() * SHAPE.pitch - SHAPE.gap);

/** Pixels of the grid for a pixel of scrolling: 1, unless the grid is taller than a browser's elements may be. */
function stretch() {
  const full = fullHeight();
  return full <= SHAPE.tallest ? 1 : (full - innerHeight) / (SHAPE.tallest - innerHeight);
}

/** Have the cards in sight in the document, and no others. */
function draw() {
  if (printing) return;
  const past = Math.max(0, -grid.getBoundingClientRect().top);
  const top = past * stretch();
  const first = Math.max(0, Math.min(rows() - 1, Math.floor(top / SHAPE.pitch) - AROUND));
  const last = Math.ceil((top + innerHeight) / SHAPE.pitch) + AROUND;
  keep(first * SHAPE.columns, Math.min(found.shown.length, last * SHAPE.columns));
  cards.style.top = `${first * SHAPE.pitch - top + past}px`;
}

/** Draw the cards from one to another, and keep those that are drawn already. */
function keep(from, to) {
  from = Math.min(from, to);
  if (from >= drawn.to || to <= drawn.from) {
    cards.replaceChildren();
    drawn = { from, to: from };
  }
  for (; drawn.from < from; drawn.from++) cards.firstElementChild.remove();
  for (; drawn.to > to; drawn.to--) cards.lastElementChild.remove();
  while (drawn.from > from) cards.prepend(card(--drawn.from));
  while (drawn.to < to) cards.append(card(drawn.to++));
  if (button(current) !== null || from === to) return;
  current = inSight(); // so that the Tab key finds the grid wherever it is scrolled to
  if (button(current)) button(current).tabIndex = 0;
}

/** The first card whose row is wholly in sight. */
function inSight() {
  const top = Math.max(0, SHAPE.covered - grid.getBoundingClientRect().top) * stretch();
  return Math.min(found.shown.length - 1, Math.ceil(top / SHAPE.pitch) * SHAPE.columns);
}

function layOut() {
  const before = SHAPE.columns;
  const anchor = drawn.from === drawn.to ? 0 : inSight();
  measure();
  grid.style.height = `${Math.min(fullHeight(), SHAPE.tallest)}px`;
  if (SHAPE.columns !== before && anchor > before) scrollToRow(anchor);
  draw();
}

function scrollToRow(index) {
  const top = (Math.floor(index / SHAPE.columns) * SHAPE.pitch) / stretch();
  scrollTo(0, top + grid.getBoundingClientRect().top + scrollY - SHAPE.covered - SHAPE.gap);
}

/** Make a card the current one, in sight, with the keyboard's focus. */
function go(index) {
  if (!found.shown.length) return;
  const old = button(current);
  if (old) old.tabIndex = -1;
  current = Math.max(0, Math.min(found.shown.length - 1, index));
  if (button(current) === null || stretch() > 1) {
    scrollToRow(current);
    draw();
  }
  button(current).tabIndex = 0;
  button(current).focus({ preventScroll: true });
  if (stretch() === 1) button(current).scrollIntoView({ block: "nearest" });
}

// filters

function update() {
  found = choose();
  current = 0;
  cards.replaceChildren();
  drawn = { from: 0, to: 0 };
  const filters = wanted.statuses.size + wanted.labels.size;
  const all = found.shown.length === photos.length;
  $("count").textContent = all ? counted(photos.length) : `${found.shown.length.toLocaleString("en")} of ${counted(photos.length)}`;
  $("clear").hidden = !filters && !wanted.words.length;
  $("active").textContent = filters ? ` (${filters})` : "";
  $("none").hidden = found.shown.length > 0;
  if (grid.getBoundingClientRect().top < 0) scrollToRow(0);
  listStatuses();
  listLabels();
  draw();
  layOut(); // a first card is there to measure now
}

const choices = new Map(); // the elements of choices, which stay the same so that the focus does

function choice(set, value, word, many) {
  const key = `${set === wanted.labels ? "label" : "status"} ${value}`;
  if (!choices.has(key)) {
    const made = copied("choice");
    made.querySelector(".word").textContent = plain(word);
    made.querySelector("input").addEventListener("change", ({ target }) => {
      set[target.checked ? "add" : "delete"](value);
      update();
    });
    choices.set(key, made);
  }
  const item = choices.get(key);
  item.querySelector("input").checked = set.has(value);
  item.querySelector(".many").textContent = many.toLocaleString("en");
  item.classList.toggle("nothing", many === 0);
  return item;
}

function fill(list, items) {
  const focused = document.activeElement;
  list.replaceChildren(...items);
  if (list.contains(focused)) focused.focus({ preventScroll: true });
}

function listStatuses() {
  const there = STATUSES.map((_, status) => status).filter((status) => totals.byStatus[status]);
  fill($("statuses"), there.map((status) => choice(wanted.statuses, status, STATUSES[status], found.byStatus[status])));
}

function listLabels() {
  const sought = folded($("find").value.trim());
  const there = totals.order.filter(
    (label) => wanted.labels.has(label) || (found.byLabel[label] && folded(labels[label]).includes(sought)),
  );
  fill($("labels"), there.slice(0, MOST_CHOICES).map((label) => choice(wanted.labels, label, labels[label], found.byLabel[label])));
  const more = there.length - MOST_CHOICES;
  $("more").hidden = more <= 0 && there.length > 0;
  $("more").textContent = more > 0 ? `and ${counted(more, "more label")}` : "no label is called that";
}

function clear() {
  wanted.words = [];
  wanted.statuses.clear();
  wanted.labels.clear();
  $("search").value = $("find").value = "";
  update();
}

const totals = { byStatus: [], order: [] }; // order: of labels in the list, which does not change while one chooses

function countAll() {
  const { byStatus, byLabel } = choose();
  totals.byStatus = byStatus;
  totals.order = labels.map((_, label) => label).filter((label) => byLabel[label]);
  totals.order.sort((a, b) => byLabel[b] - byLabel[a] || ranks[a] - ranks[b]);
}

// the opened photo

function open(index) {
  const photo = found.shown[index];
  if (photo === undefined) return;
  opened = index;
  $("place").textContent = `${(index + 1).toLocaleString("en")} of ${found.shown.length.toLocaleString("en")}`;
  $("before").ariaDisabled = String(index === 0);
  $("after").ariaDisabled = String(index === found.shown.length - 1);
  $("view-picture").replaceChildren(picture(photo));
  view.className = STATUSES[photo.status];
  $("view-name").textContent = plain(photo.name);
  $("view-error").hidden = photo.error === null;
  $("view-error").textContent = photo.error === null ? "" : `${photo.error.kind}: ${plain(photo.error.message)}`;
  $("view-answer").hidden = photo.answer === null;
  $("view-answer").textContent = photo.answer === null ? "" : plain(photo.answer);
  const guesses = [];
  for (let i = 0; i < photo.guesses.length; i += 2) {
    guesses.push(copied("guess"));
    guessed(guesses.at(-1), photo.guesses[i], photo.guesses[i + 1]);
  }
  $("view-best").textContent = guesses.length > 1 ? `Best ${guesses.length} guesses` : guesses.length ? "Best guess" : "No guesses";
  $("view-guesses").replaceChildren(...guesses);
  offerMaps(photo, guesses);
  const size = photo.width === null ? "not known" : `${photo.width.toLocaleString("en")} × ${photo.height.toLocaleString("en")} pixels`;
  const facts = { Path: plain(photo.path), Size: size, Status: STATUSES[photo.status], Model: plain(photo.model) };
  const pairs = Object.entries(facts).map(([name, text]) => [element("dt", name), element("dd", text, name.toLowerCase())]);
  $("view-facts").replaceChildren(...pairs.flat());
  if (view.open) return;
  view.showModal();
  $("close").focus();
}
