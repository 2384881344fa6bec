// Cards: everything known about a configuration or a trial, in a dialog. Texts come ready-made from the page's data.
const DATA = JSON.parse(document.getElementById("card-data").textContent);
const dialog = document.getElementById("card");
const SVG = "http://www.w3.org/2000/svg";
let opener = null;
let trail = [];

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function drawn(tag, attributes, text = "") {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}

function grid(headings, rows, caption, numericFrom = 1) {
  const cell = (tag, content, index) => element(tag, index >= numericFrom ? { class: "number" } : {}, content);
  const head = element("tr", {}, ...headings.map((text, i) => cell("th", text, i)));
  const body = rows.map((row) => element("tr", {}, ...row.map((content, i) => cell("td", content, i))));
  const table = element("table", {}, element("caption", {}, caption), element("thead", {}, head));
  table.append(element("tbody", {}, ...body));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
}

function facts(pairs) {
  return element("dl", {}, ...pairs.flatMap(([label, text]) => [element("dt", {}, label), element("dd", {}, text)]));
}

function stageGrid(configuration) {
  const rows = configuration.stages.map((stage, i) => [String(i + 1), ...stage.map(String)]);
  return grid(["Stage", "Patch size", "Batch size", "First iteration", "Iterations"], rows, "Stage table");
}

// One panel of learning curves; a tick on a curve is a change of stage.
function curvePanel(curves, axis, unit) {
  const [width, height, left, bottom, top] = [320, 170, 34, 34, 8];
  const last = Math.max(...curves.map((curve) => curve[axis].at(-1)));
  const x = (value) => left + (value / (last || 1)) * (width - left - 12);
  const y = (value) => top + (1 - value) * (height - top - bottom);
  const label = `Pseudo Dice against ${unit}, up to ${last}; ends at ${curves.map((c) => c.dice.at(-1)).join(", ")}`;
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "curve" });
  for (const level of [0, 0.5, 1]) {
    svg.append(drawn("path", { d: `M${left} ${y(level)}H${width - 12}`, class: "rule" }));
    svg.append(drawn("text", { x: left - 6, y: y(level) + 4, "text-anchor": "end" }, String(level)));
  }
  for (const curve of curves) {
    const place = (i) => `${x(curve[axis][i]).toFixed(1)} ${y(curve.dice[i]).toFixed(1)}`;
    svg.append(drawn("path", { d: "M" + curve.dice.map((_, i) => place(i)).join("L"), class: "line" }));
    if (curve.dice.length === 1) svg.append(drawn("circle", { cx: x(last), cy: y(curve.dice[0]), r: 2.5 }));
    for (const i of curve.stages) svg.append(drawn("path", { d: `M${place(i)}m0 -5v10`, class: "change" }));
  }
  svg.append(drawn("text", { x: left, y: height - 18 }, "0"));
  svg.append(drawn("text", { x: width - 12, y: height - 18, "text-anchor": "end" }, String(last)));
  svg.append(drawn("text", { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, unit));
  return svg;
}

function curveFigure(curves) {
  if (!curves.length) return "";
  const words = "Pseudo Dice of the fixed validation batches while training; ticks mark changes of stage. It is not the Dice.";
  const panels = element("div", { class: "curves" });
  panels.append(curvePanel(curves, "iterations", "iterations"), curvePanel(curves, "seconds", "training seconds"));
  return element("figure", {}, panels, element("figcaption", {}, words));
}

function copyButton(code) {
  const button = element("button", { type: "button" }, "Copy");
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(code);
    button.textContent = document.execCommand("copy") ? "Copied" : "Selected: press Ctrl+C";
  });
  return button;
}

function copyable([words, command]) {
  const code = element("code", { tabindex: "0" }, command);
  return [element("h3", {}, words), element("p", { class: "muted" }, "In the study's folder:"), element("pre", {}, code), copyButton(code)];
}

function linksTo(pairs) {
  return element("p", {}, ...pairs.flatMap(([words, place], i) => [i ? " · " : "", element("a", { href: place }, words)]));
}

function details(entry, note) {
  const parts = [];
  if (entry.classes?.length) parts.push(grid(["Class", "Dice"], entry.classes, `Dice per class${note}`));
  if (entry.costs) parts.push(grid(["Cause", "Time", "Energy", "CO₂"], entry.costs, "Cost by cause"));
  return parts;
}

function trialParts(entry) {
  const configuration = DATA.configurations[entry.configuration];
  const parts = [];
  if (configuration) parts.push(element("p", {}, "Configuration: ", link(entry.configuration, configuration.summary)));
  parts.push(facts(entry.facts), curveFigure(entry.curve ? [entry.curve] : []), ...details(entry, ", mean over the cases"));
  if (configuration) parts.push(stageGrid(configuration));
  if (entry.links) parts.push(linksTo(entry.links));
  if (entry.commands) parts.push(...entry.commands.flatMap(copyable));
  if (entry.events) parts.push(grid(["Time", "Event"], entry.events, "What happened", 2));
  return parts;
}

function configurationParts(configuration) {
  const entries = configuration.trials.flatMap((id) => DATA.trials[id].map((entry) => [id, entry]));
  const rows = entries.map(([id, entry]) => [link(id, id), ...entry.row]);
  const curves = entries.flatMap(([, entry]) => (entry.curve ? [entry.curve] : []));
  return [
    facts(configuration.facts ?? [["Dice", "no trial has finished"]]), curveFigure(curves),
    grid(["Trial", ...DATA.row_headings], rows, "Its trials; a trial's card has its own costs, events and command", 4),
    ...details(configuration, ", mean over trials and cases"), stageGrid(configuration),
    ...entries.filter(([, entry]) => entry.commands).slice(0, 1).flatMap(([, entry]) => entry.commands.flatMap(copyable)),
  ];
}

function link(id, words) {
  return element("a", { href: "#" + id, "data-card": id }, words);
}

function show(id) {
  const configuration = DATA.configurations[id];
  const title = configuration ? configuration.summary : `Trial ${id}`;
  const close = element("button", { type: "button", class: "close", "aria-label": "Close" }, "×");
  close.addEventListener("click", () => dialog.close());
  const head = element("header", {}, element("h2", { id: "card-title", tabindex: "-1" }, title), close);
  if (trail.length > 1) {
    const back = element("button", { type: "button" }, "Back");
    back.addEventListener("click", () => { trail.pop(); show(trail.at(-1)); });
    head.prepend(back);
  }
  const kind = configuration ? element("p", { class: "muted" }, `Configuration ${id}`) : "";
  const body = configuration ? configurationParts(configuration) : DATA.trials[id].flatMap(trialParts);
  dialog.replaceChildren(head, kind, ...body);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  document.getElementById("card-title").focus();
}

function openCard(id, from) {
  if (!dialog.open) { opener = from; trail = []; }
  trail.push(id);
  show(id);
}

dialog.addEventListener("close", () => opener?.focus());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
document.addEventListener("click", (event) => {
  const anchor = event.target.closest?.("a[data-card]");
  if (!anchor || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  openCard(anchor.dataset.card, anchor);
});

for (const code of document.querySelectorAll("main pre code")) code.parentElement.after(copyButton(code));
