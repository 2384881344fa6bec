// Points of figures: a tooltip on hover and focus, a card on click and Enter. A figure is one tab stop; arrow keys go on.
const tip = document.getElementById("tip");
const TIP_STAGES = 6;

function pointWords(configuration) {
  const told = (configuration.facts ?? []).map(([label, text]) => `${label} ${text}`);
  return [configuration.summary, ...told].join(", ");
}

function tipParts(configuration) {
  const pairs = (configuration.facts ?? []).slice(0, configuration.told);
  const classes = (configuration.classes ?? []).map(([label, dice]) => `${label}: ${dice}`);
  if (classes.length) pairs.push(["Dice per class", classes.join(", ")]);
  const stages = grid(["Patch", "Batch", "Iterations"], tipStages(configuration.stages), "Stages");
  return [element("strong", {}, configuration.summary), facts(pairs), stages, element("p", { class: "muted" }, "Click or Enter: its card")];
}

function tipStages(stages) {
  const rows = stages.map(([patch, batch, , iterations]) => [patch, String(batch), String(iterations)]);
  if (rows.length <= TIP_STAGES) return rows;
  return [...rows.slice(0, TIP_STAGES - 2), [`${rows.length - TIP_STAGES + 1} more`, "", ""], rows.at(-1)];
}

function showTip(group, configuration) {
  tip.replaceChildren(...tipParts(configuration));
  for (const box of tip.querySelectorAll(".scroll")) box.removeAttribute("tabindex");
  tip.hidden = false;
  const [left, top] = placeFor(group);
  tip.style.left = `${left}px`;
  tip.style.top = `${top}px`;
}

// Where the tooltip hides the fewest points of the figure: at the point's sides, else at the edges of figure and window.
function placeFor(group) {
  const [width, height] = [tip.offsetWidth, tip.offsetHeight];
  const at = group.getBoundingClientRect();
  const figure = group.ownerSVGElement.getBoundingClientRect();
  const points = Array.from(group.ownerSVGElement.querySelectorAll(".point:not(.filtered)"), (one) => one.getBoundingClientRect());
  const across = [at.right + 12, at.left - 12 - width, (at.left + at.right - width) / 2, figure.right - width, figure.left, 4, innerWidth - width - 4];
  const down = [at.top - 20, at.bottom - height + 20, at.bottom + 12, at.top - 12 - height, figure.bottom + 4, figure.top - height - 4, 4, innerHeight - height - 4];
  let best = [Infinity];
  for (const x of across.map((left) => Math.max(4, Math.min(left, innerWidth - width - 4)))) {
    for (const y of down.map((top) => Math.max(4, Math.min(top, innerHeight - height - 4)))) {
      const hides = (box) => box.right > x && box.left < x + width && box.bottom > y && box.top < y + height;
      const apart = Math.hypot(x + width / 2 - at.x, y + height / 2 - at.y);
      const badness = 1e4 * (points.filter(hides).length + (hides(at) ? 1e3 : 0)) + apart;
      if (badness < best[0]) best = [badness, x, y];
    }
  }
  return best.slice(1);
}

function hideTip() {
  tip.hidden = true;
}

function makePoint(group, id, configuration) {
  group.setAttribute("role", "button");
  group.setAttribute("tabindex", "-1");
  group.setAttribute("aria-label", pointWords(configuration));
  group.addEventListener("pointerenter", () => showTip(group, configuration));
  group.addEventListener("pointerleave", hideTip);
  group.addEventListener("focus", () => showTip(group, configuration));
  group.addEventListener("blur", hideTip);
  group.addEventListener("click", () => { hideTip(); openCard(id, group); });
}

// What is out of sight on this screen has no box: order by place only when a key asks.
function inOrder(points) {
  const shown = points.filter((point) => !point.classList.contains("filtered"));
  const places = new Map(shown.map((point) => [point, point.getBoundingClientRect()]));
  return shown.sort((a, b) => places.get(a).x - places.get(b).x || places.get(b).y - places.get(a).y);
}

function move(points, from, key) {
  const order = inOrder(points);
  const at = order.indexOf(from);
  const steps = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: order.length - 1 };
  const to = order[steps[key]];
  if (to) {
    from.setAttribute("tabindex", "-1");
    to.setAttribute("tabindex", "0");
    to.focus();
  }
  return key in steps;
}

function makeFigure(svg) {
  const points = Array.from(svg.querySelectorAll(".point")).filter((group) => DATA.configurations[group.dataset.card]);
  for (const group of points) makePoint(group, group.dataset.card, DATA.configurations[group.dataset.card]);
  if (!points.length) return;
  points[0].setAttribute("tabindex", "0");
  // An image has no buttons in it.
  svg.setAttribute("role", "group");
  svg.setAttribute("aria-label", svg.getAttribute("aria-label") + " Arrow keys move from point to point, Enter opens a card.");
  svg.addEventListener("keydown", (event) => {
    const group = event.target.closest(".point");
    if (!group) return;
    if (event.key === "Enter" || event.key === " ") { hideTip(); openCard(group.dataset.card, group); event.preventDefault(); }
    else if (move(points, group, event.key)) event.preventDefault();
  });
}

document.querySelectorAll("figure > svg").forEach(makeFigure);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
addEventListener("scroll", hideTip, { passive: true });
