"use strict";
// Makes tables sortable by their headers, and lets curves show the value at the pointer. The page reads without it, too.

const NUMBER = /^\[?([+-]?[\d,]*\.?\d+(?:e[+-]?\d+)?)/i;

function sort(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const down = heads[column].getAttribute("aria-sort") === "ascending";
  heads.forEach(head => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows].map(row => ({row, text: row.cells[column].textContent.trim().replace(/−/g, "-")}));
  const filled = rows.filter(({text}) => text && text !== "–");                  // empty cells come last, either way
  const numbers = filled.every(({text}) => NUMBER.test(text));
  const value = text => parseFloat(NUMBER.exec(text)[1].replace(/,/g, ""));
  filled.sort(({text: a}, {text: b}) => numbers ? value(a) - value(b) : a.localeCompare(b, "en", {numeric: true}));
  if (down) filled.reverse();
  table.tBodies[0].append(...filled.map(({row}) => row), ...rows.filter(one => !filled.includes(one)).map(({row}) => row));
}

for (const table of document.querySelectorAll("table")) {
  if (!table.tHead || table.tBodies[0].rows.length < 3) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!head.textContent) return;
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, column));
    head.append(button);
  });
}

for (const figure of document.querySelectorAll("figure.curve")) {
  const svg = figure.querySelector("svg"), cursor = svg.querySelector(".cursor");
  const lines = JSON.parse(svg.dataset.lines);                                   // per line, its points as [x, step, value]
  const stops = lines.reduce((one, other) => other.length > one.length ? other : one);
  const nearest = (points, x) => points.reduce((a, b) => Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a);
  let at = stops.length - 1;

  function show(index) {
    at = Math.max(0, Math.min(stops.length - 1, index));
    const [x, step] = stops[at];
    const values = lines.map(points => nearest(points, x)).map(([, of, value]) => of === step ? value : `${value} at ${of}`);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.style.visibility = "visible";
    figure.querySelector(".at").textContent = `step ${step}`;
    const keys = [...figure.querySelectorAll(".key")];
    keys.forEach((key, line) => { key.querySelector("b").textContent = values[line]; });
    svg.setAttribute("aria-valuenow", step);
    svg.setAttribute("aria-valuetext", [`step ${step}`, ...keys.map(key => key.textContent)].join(", "));
  }

  function point(event) {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    show(stops.indexOf(nearest(stops, x)));
  }

  svg.tabIndex = 0;
  svg.setAttribute("role", "slider");
  svg.setAttribute("aria-valuemin", stops[0][1]);
  svg.setAttribute("aria-valuemax", stops[stops.length - 1][1]);
  show(at);
  cursor.style.visibility = "hidden";
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);                                    // touch screens have no hover
  svg.addEventListener("keydown", event => {
    const steps = {ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity};
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(at + steps[event.key]);
  });
}
