"use strict";
// What is rated, and the ratings: [id][question] = 1 to 5. They are kept in this browser until they are saved.
const at = id => document.getElementById(id);
const {rated_sha256, questions, items} = JSON.parse(at("data").textContent);
const names = Object.keys(questions);
const key = `ratings-${rated_sha256}`;
let state = {item: 0, rater: "", ratings: {}, last: []}, saved = true, shown = null;

try { state = {...state, ...JSON.parse(localStorage.getItem(key) || "{}")}; } catch { /* a browser may keep nothing */ }
state.item = Math.min(state.item, items.length - 1);   // another page of the same result may hold more
for (const item of items) state.ratings[item.id] ??= {};

function keep() {
  try { localStorage.setItem(key, JSON.stringify(state)); } catch { /* then the saved file is all there is */ }
}

const ratingsOf = item => state.ratings[item.id];
const openQuestion = item => names.find(name => !(name in ratingsOf(item)));   // the first without a rating, or none

function piece([kind, text]) {                         // as text, never as HTML: a model wrote it
  const span = document.createElement("span");
  span.className = kind;
  span.textContent = text;
  return span;
}

function show() {
  if (state.item !== shown) window.scrollTo(0, 0);     // another answer: from its beginning
  shown = state.item;
  const item = items[state.item], open = openQuestion(item), total = items.length * names.length;
  const done = items.reduce((sum, one) => sum + Object.keys(ratingsOf(one)).length, 0);
  at("progress").value = done;
  at("progress").max = total;
  at("count").textContent = `answer ${state.item + 1} of ${items.length} · ${done} of ${total} ratings`;
  at("asked").textContent = done === total ? "All is rated. Thank you: save the ratings."
    : open ? questions[open] : "Rated. Go on to the next answer.";
  for (const part of ["prompt", "answer"]) at(part).replaceChildren(...item[part].map(piece));
  for (const row of at("questions").children) {
    row.classList.toggle("open", row.dataset.question === open);
    for (const button of row.querySelectorAll("button"))
      button.setAttribute("aria-pressed", ratingsOf(item)[row.dataset.question] === Number(button.textContent));
  }
  keep();
}

function rate(name, value) {
  const item = items[state.item];
  ratingsOf(item)[name] = value;
  state.last.push([state.item, name]);
  saved = false;
  if (!openQuestion(item)) {                           // on to the next answer that lacks a rating
    const order = items.map((_, i) => (state.item + i) % items.length);
    state.item = order.find(i => openQuestion(items[i])) ?? state.item;
  }
  show();
}

function undo() {
  if (!state.last.length) return;
  const [item, name] = state.last.pop();
  state.item = Math.min(item, items.length - 1);
  delete ratingsOf(items[state.item])[name];
  saved = false;
  show();
}

function go(step) {
  state.item = Math.min(items.length - 1, Math.max(0, state.item + step));
  show();
}

function save() {
  const rater = at("rater").value.trim();
  at("trouble").hidden = Boolean(rater);
  if (!rater) {
    at("trouble").textContent = "Enter your name first: it tells the raters apart.";
    at("rater").focus();
    return;
  }
  const rows = items.map(item => ({id: item.id, ...ratingsOf(item)})).filter(row => Object.keys(row).length > 1);
  const link = document.createElement("a");
  link.download = `ratings-${rater.replace(/[^\p{L}\p{N}_-]+/gu, "-")}.json`;
  link.href = URL.createObjectURL(new Blob([JSON.stringify({rated_sha256, rater, ratings: rows}, null, 1)]));
  link.click();
  saved = true;
}

for (const name of names) {
  const row = document.createElement("div"), text = document.createElement("span");
  row.className = "question";
  row.dataset.question = name;
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", questions[name]);
  text.textContent = questions[name];
  row.append(text);
  for (const value of [1, 2, 3, 4, 5]) {
    const button = document.createElement("button");
    button.textContent = value;
    button.setAttribute("aria-label", `${name}: ${value} of 5`);
    button.onclick = () => rate(name, value);
    row.append(button);
  }
  at("questions").append(row);
}
document.addEventListener("keydown", event => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target === at("rater")) return;
  if (/^[1-5]$/.test(event.key)) { const open = openQuestion(items[state.item]); if (open) rate(open, Number(event.key)); }
  else if (event.key === "Backspace") { event.preventDefault(); undo(); }
  else if (event.key === "ArrowLeft") go(-1);
  else if (event.key === "ArrowRight") go(1);
  else if (event.key === "s") save();
});
at("back").onclick = () => go(-1);
at("next").onclick = () => go(1);
at("undo").onclick = undo;
at("save").onclick = save;
at("rater").value = state.rater;
at("rater").oninput = event => { state.rater = event.target.value; keep(); };
window.addEventListener("beforeunload", event => { if (!saved) event.preventDefault(); });
show();
