"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Tables: a click on a column's button, or Enter or Space, sorts by it; again: the other way round. Empty cells stay last.
for (const table of all("table.sortable")) {
  const heads = all("thead th", table), body = table.tBodies[0];
  const key = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.value ?? cell.textContent.trim(), number = Number(text);
    return text === "" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const before = head.ariaSort, first = head.classList.contains("number") && column > 0 ? "descending" : "ascending";
    const order = before === "none" ? first : before === "ascending" ? "descending" : "ascending", sign = order === "ascending" ? 1 : -1;
    for (const other of heads) if (other.ariaSort) other.ariaSort = "none";
    head.ariaSort = order;
    const rows = [...body.rows].map((row) => [key(row, column), row]);
    rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b));
    body.append(...rows.map(([, row]) => row));
  }));
}

// Finding: rows and marks that do not have every word are hidden or dimmed.
const find = document.getElementById("find"), found = document.getElementById("found"), boxes = all(".choices input");
const rows = all("tr[data-name]"), marks = all(".marks a");
function filter() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean), checked = (id) => document.getElementById(id)?.checked;
  const misses = (item) => words.some((word) => !item.dataset.name.toLowerCase().includes(word));
  const inGraph = (row) => row.id.startsWith("node-");
  for (const row of rows) {
    row.hidden = misses(row) || (inGraph(row) && checked("norms") && !("norm" in row.dataset))
      || (row.className === "is-gone" && !words.length && !checked("gone"));
  }
  for (const mark of marks) mark.classList.toggle("dim", misses(mark));
  const nodes = rows.filter(inGraph);
  found.textContent = words.length ? `${nodes.filter((row) => !row.hidden).length} of ${nodes.length} nodes` : "";
}
find.addEventListener("input", filter);
for (const box of boxes) box.addEventListener("change", filter);
filter();
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && event.target !== find) {
    event.preventDefault();
    find.select();
  }
});

// What a link leads to is shown, even where it was filtered away or folded up.
function reveal() {
  const target = document.getElementById(location.hash.slice(1));
  if (!target) return;
  if (target.hidden) {
    find.value = "";
    for (const box of boxes) box.checked = box.id === "gone";
    filter();
  }
  const details = target.closest("details");
  if (details) details.open = true;
  target.scrollIntoView({ block: "center" });
}
addEventListener("hashchange", reveal);
reveal();

// Charts: one stop for the tabulator key, arrows from mark to mark; what has the focus or the pointer is told below the chart.
for (const figure of all("figure")) {
  const items = all(".marks a", figure), readout = figure.querySelector(".readout");
  const visit = (index) => {
    const next = items[Math.max(0, Math.min(items.length - 1, index))];
    for (const item of items) item.setAttribute("tabindex", item === next ? "0" : "-1");
    return next;
  };
  if (items.length) visit(0);
  items.forEach((item, index) => {
    const tell = () => { readout.textContent = item.getAttribute("aria-label"); };
    item.addEventListener("focus", tell);
    item.addEventListener("pointerenter", tell);
    item.addEventListener("keydown", (event) => {
      const to = { ArrowRight: index + 1, ArrowDown: index + 1, ArrowLeft: index - 1, ArrowUp: index - 1, Home: 0, End: items.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      visit(to).focus();
    });
  });
}
