// What people do: keys, clicks, scrolling, printing; then the photos are read and the page begins.

const MOVES = {
  ArrowRight: () => current + 1,
  ArrowLeft: () => current - 1,
  ArrowDown: () => current + SHAPE.columns,
  ArrowUp: () => current - SHAPE.columns,
  Home: () => 0,
  End: () => found.shown.length - 1,
};
const TURNS = { ArrowLeft: -1, ArrowRight: 1 }; // of the opened photo

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (view.open && event.key in TURNS) open(opened + TURNS[event.key]);
  if (document.querySelector("dialog[open]")) return;
  const typing = event.target.closest?.("input[type=search], select");
  if (event.key === "Escape") {
    if (document.body.classList.contains("sheet")) sheet(false);
    else if (typing) go(inSight());
  } else if (typing) {
    if (event.target.id !== "search" || !["ArrowDown", "Enter"].includes(event.key)) return;
    search();
    go(inSight());
  } else if (event.key === "/") {
    $("search").focus();
    $("search").select();
  } else if (event.key === "?") {
    $("keys").showModal();
  } else if (event.key in MOVES) {
    const onCard = document.activeElement?.classList.contains("card");
    // from where one looks: the current card, unless it was scrolled away
    go(onCard || event.key === "Home" || event.key === "End" ? MOVES[event.key]() : inSight());
  } else return;
  event.preventDefault();
}

function sheet(open) {
  document.body.classList.toggle("sheet", open);
  $("sheet").ariaExpanded = String(open);
  (open ? $("filters").querySelector("input") : $("sheet")).focus();
}

function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}

let typed = 0;

function search() {
  clearTimeout(typed);
  wanted.words = folded($("search").value).split(/\s+/).filter(Boolean);
  update();
}

document.addEventListener("keydown", pressed);
document.addEventListener("scroll", draw, { passive: true });
cards.addEventListener("click", ({ target }) => {
  const card = target.closest(".card");
  if (card) open(Number(card.dataset.index));
});
cards.addEventListener("focusin", ({ target }) => {
  const old = button(current);
  if (old) old.tabIndex = -1;
  current = Number(target.dataset.index);
  target.tabIndex = 0;
});
$("search").addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(search, photos.length > 20000 ? 250 : 50); // not at each letter
});
$("find").addEventListener("input", listLabels);
$("order").addEventListener("change", ({ target }) => {
  wanted.order = target.value;
  update();
});
$("clear").addEventListener("click", clear);
$("sheet").addEventListener("click", () => sheet(!document.body.classList.contains("sheet")));
$("done").addEventListener("click", () => sheet(false));
$("theme").addEventListener("click", theme);
$("help").addEventListener("click", () => $("keys").showModal());
$("before").addEventListener("click", () => open(opened - 1));
$("after").addEventListener("click", () => open(opened + 1));
$("close").addEventListener("click", () => view.close());
view.addEventListener("close", () => go(opened)); // the browser goes back to where it was opened
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
}
addEventListener("beforeprint", () => {
  printing = true;
  keep(0, Math.min(found.shown.length, MOST_PRINTED));
  $("printed").hidden = found.shown.length <= MOST_PRINTED;
  $("printed").textContent = `The first ${MOST_PRINTED} of ${counted(found.shown.length)}.`;
});
addEventListener("afterprint", () => {
  printing = false;
  $("printed").hidden = true;
  layOut();
});

async function begin() {
  await read((soFar) => ($("count").textContent = `Reading ${soFar.toLocaleString("en")} of ${counted(about.photos)}…`));
  $("order").value = wanted.order; // a browser that goes back keeps what was chosen before
  $("search").value = $("find").value = "";
  if (about.left_out) {
    $("told").textContent = `${counted(about.left_out)} beyond the first ${counted(about.most)} stand here without a picture.`;
    $("told").hidden = false;
  }
  countAll();
  update();
  new ResizeObserver(layOut).observe($("grid").parentElement);
  document.body.dataset.ready = Math.round(performance.now()); // milliseconds since it was asked for
}

begin();
