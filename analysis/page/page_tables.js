// Tables: a click on a heading sorts by it, again turns the order round. Missing values come last either way.
function sortValue(row, column, numeric) {
  const cell = row.cells[column];
  if (!numeric) return cell.textContent === "–" ? null : cell.textContent;
  const value = parseFloat(cell.dataset.value ?? cell.textContent);
  return Number.isNaN(value) ? null : value;
}

function compare(a, b) {
  return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
}

function sortBy(heading, column) {
  const table = heading.closest("table");
  const ascending = heading.getAttribute("aria-sort") !== "ascending";
  const numeric = heading.classList.contains("number");
  const rows = Array.from(table.tBodies[0].rows, (row) => [sortValue(row, column, numeric), row]);
  // Array.sort is stable: rows that tie keep their order.
  rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : (ascending ? 1 : -1) * compare(a, b)));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("main table")) {
  Array.from(table.tHead.rows[0].cells).forEach((heading, column) => {
    const button = element("button", { type: "button", class: "sort" }, ...heading.childNodes);
    button.addEventListener("click", () => sortBy(heading, column));
    heading.append(button);
  });
}

// Filters: checkboxes per scheme and budget hide what all of whose points are hidden: marks, bars, curves, labels and
// keys of figures, and rows of tables. Lines of fronts stay: they are of all.
const configurations = Object.values(DATA.configurations);
const filters = document.getElementById("filters");
const FILTERS = [["Scheme", "method", "label"], ["Budget", "budget", "budget"]];

function configurationsOf(node) {
  const ids = node.dataset.of?.match(/[0-9a-f]{12}/g) ?? [(node.dataset.card ? node : node.querySelector("a[data-card]"))?.dataset.card];
  return ids.map((id) => DATA.configurations[id] ?? DATA.configurations[DATA.trials[id]?.[0].configuration]).filter(Boolean);
}

function apply() {
  const off = Array.from(filters.querySelectorAll("input:not(:checked)"), (box) => [box.name, box.value]);
  for (const node of document.querySelectorAll("svg .point, svg [data-of], main tbody tr")) {
    const told = configurationsOf(node);
    node.classList.toggle("filtered", told.length > 0 && told.every((one) => off.some(([name, value]) => one[name] === value)));
  }
  for (const svg of document.querySelectorAll("figure > svg")) keepTabStop(svg);
  filters.querySelector("output").textContent = off.length ? "Some points and rows are hidden; fronts are of all." : "";
}

function keepTabStop(svg) {
  const points = Array.from(svg.querySelectorAll(".point"));
  const stop = points.find((point) => point.getAttribute("tabindex") === "0");
  const free = points.find((point) => !point.classList.contains("filtered"));
  if (!stop?.classList.contains("filtered") || !free) return;
  stop.setAttribute("tabindex", "-1");
  free.setAttribute("tabindex", "0");
}

function filterGroup([words, name, label]) {
  const values = new Map(configurations.map((configuration) => [configuration[name], configuration[label]]));
  if (values.size < 2) return [];
  const group = element("fieldset", {}, element("legend", {}, words));
  const rank = ([value]) => (name === "budget" ? parseFloat(value) : DATA.methods.indexOf(value));
  const order = [...values].sort((a, b) => rank(a) - rank(b));
  for (const [value, text] of order) {
    const box = element("input", { type: "checkbox", name, value });
    box.checked = true;
    group.append(element("label", {}, box, " " + text));
  }
  return [group];
}

const groups = FILTERS.flatMap(filterGroup);
if (groups.length) {
  filters.append(element("strong", {}, "Show"), ...groups, element("output", { "aria-live": "polite" }));
  filters.addEventListener("change", apply);
  filters.hidden = false;
}

// One cost at a time; paper shows all of them.
const choices = Array.from(document.querySelectorAll("[data-choice]"));
function choose(stem) {
  for (const one of choices) one.classList.toggle("unchosen", one.id !== stem);
}
if (choices.length > 1) {
  const options = choices.map((one) => element("option", { value: one.id }, one.dataset.choice));
  const select = element("select", { id: "cost" }, ...options);
  select.addEventListener("change", () => choose(select.value));
  const reached = choices.find((one) => one.id === location.hash.slice(1)) ?? choices[0];
  choices[0].before(element("p", { class: "choose" }, element("label", { for: "cost" }, "Dice against "), select));
  for (const one of choices) one.querySelector("h2").classList.add("chosen-by-name");
  select.value = reached.id;
  choose(reached.id);
}

addEventListener("beforeprint", () => { for (const one of document.querySelectorAll("details")) one.open = true; });
