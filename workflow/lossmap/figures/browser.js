"use strict";
// Everything from outside (questions, answers, names) enters the page as text, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
const number = (value) => (value === null ? "–" : value.toFixed(data.digits));
const percent = (value) => `${Math.round(value)}%`;

const colours = data.losses.map((loss) => bytes(loss.colours)); // 256 times red, green, blue
const photos = data.images.map((source) => Object.assign(new Image(), { src: source }));
photos.forEach((photo) => photo.addEventListener("load", () => photos[current()?.image] === photo && draw()));

for (const example of data.examples) {
  example.maps = example.maps.map((map) => new Float32Array(bytes(map).buffer));
  example.covered = example.covered && bytes(example.covered);
  example.outline = example.mask && outlineOf(example.mask);
  example.words = [example.id, example.question, example.prediction, ...example.references.map(([text]) => text)]
    .join("\n").toLowerCase();
}

const state = { shown: [], at: 0, loss: 0, patch: null };
const current = () => state.shown[state.at];
// Nothing is predicted of images that nothing was asked about.
const predicted = (example) => example.prediction !== null;
// What examples are sorted and filtered by: the mean of the loss shown, over the answer's patches where they are known.
const level = (example) => example.means[state.loss][0] ?? example.means[state.loss][2];

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// The border of a mask, in pixels of the image. A mask is width, height, and the lengths of its runs of 0, 1, 0, 1, ...
function outlineOf({ width, height, runs, scale }) {
  const inside = new Uint8Array((width + 2) * (height + 2)); // one pixel of ground around it closes the border
  let place = 0;
  runs.forEach((run, i) => {
    for (const stop = place + run; place < stop; place++) {
      if (i % 2) inside[(Math.floor(place / width) + 1) * (width + 2) + (place % width) + 1] = 1;
    }
  });
  const path = new Path2D();
  const differs = (x, y, step) => inside[y * (width + 2) + x] !== inside[y * (width + 2) + x - step];
  const line = (x0, y0, x1, y1) => {
    path.moveTo((x0 - 1) * scale[0], (y0 - 1) * scale[1]);
    path.lineTo((x1 - 1) * scale[0], (y1 - 1) * scale[1]);
  };
  for (let y = 1; y < height + 2; y++) {
    for (let x = 1; x < width + 2; x++) {
      if (differs(x, y, 1)) line(x, y, x, y + 1);
      if (differs(x, y, width + 2)) line(x, y, x + 1, y);
    }
  }
  return path;
}

// Raster numbers of the patches of largest absolute value; equal ones in raster order.
function worstPatches(map) {
  const order = Array.from(map.keys()).sort((a, b) => Math.abs(map[b]) - Math.abs(map[a]) || a - b);
  return order.slice(0, 10);
}

// The values that the ends of the colours mean.
function range(example) {
  const same = data.examples.filter((other) => other.model === example.model);
  const maps = ($("shared").checked ? same : [example]).map((other) => other.maps[state.loss]);
  const high = Math.max(...maps.map((map) => map.reduce((most, value) => Math.max(most, Math.abs(value)), 0))) || 1;
  return [data.losses[state.loss].signed ? -high : 0, high];
}

function colourOf(value, [low, high]) {
  const at = 3 * Math.min(255, Math.max(0, Math.floor((256 * (value - low)) / (high - low))));
  return `rgb(${colours[state.loss].slice(at, at + 3).join(" ")})`;
}

// What is shown: the image and all that the model saw, which may reach beyond it. In pixels of the image.
function view(example) {
  const [left, top, right, bottom] = example.box;
  const x = Math.min(0, left), y = Math.min(0, top);
  return { x, y, width: Math.max(example.size[0], right) - x, height: Math.max(example.size[1], bottom) - y };
}

function draw() {
  const example = current(), canvas = $("map"), context = canvas.getContext("2d");
  if (!example) return;
  const seen = view(example), room = $("viewer").clientWidth - 32;
  const width = Math.min(room, Math.max(280, 0.62 * innerHeight) * (seen.width / seen.height));
  canvas.style.width = `${width}px`;
  canvas.width = Math.round(width * devicePixelRatio);
  canvas.height = Math.round((canvas.width * seen.height) / seen.width);
  const zoom = canvas.width / seen.width, dot = devicePixelRatio;
  const [columnAt, rowAt] = edges(example, seen, zoom);
  const [rows, cols] = example.grid, map = example.maps[state.loss], ends = range(example);
  const cell = (patch) => {
    const x = columnAt[patch % cols], y = rowAt[Math.floor(patch / cols)];
    return [x, y, columnAt[(patch % cols) + 1] - x, rowAt[Math.floor(patch / cols) + 1] - y];
  };

  context.imageSmoothingQuality = "high";
  const place = [-seen.x * zoom, -seen.y * zoom, example.size[0] * zoom, example.size[1] * zoom];
  if (photos[example.image].complete) context.drawImage(photos[example.image], ...place);
  context.fillStyle = "rgb(128 128 128 / .75)"; // what the model did not see
  context.beginPath();
  context.rect(0, 0, canvas.width, canvas.height);
  context.rect(columnAt[0], rowAt[0], columnAt[cols] - columnAt[0], rowAt[rows] - rowAt[0]);
  context.fill("evenodd");
  // Towards zero the colours fade, so that they don't hide the image where there is nothing to see; not at full opacity.
  const opacity = $("opacity").value / 100;
  map.forEach((value, patch) => {
    context.globalAlpha = opacity ** (0.5 / Math.sqrt(Math.max(1e-6, Math.min(1, Math.abs(value) / ends[1]))));
    context.fillStyle = colourOf(value, ends);
    context.fillRect(...cell(patch));
  });
  context.globalAlpha = 1;
  const twice = (stroke, inner, width) => {
    for (const [colour, wide] of [["black", width + 2], [inner, width]]) {
      context.strokeStyle = colour;
      context.lineWidth = wide * dot;
      stroke();
    }
  };
  if ($("grid").checked) {
    context.strokeStyle = "rgb(255 255 255 / .6)";
    context.lineWidth = dot;
    map.forEach((_, patch) => context.strokeRect(...cell(patch)));
  }
  if ($("mask").checked && example.outline) {
    const outline = new Path2D();
    outline.addPath(example.outline, new DOMMatrix([zoom, 0, 0, zoom, -seen.x * zoom, -seen.y * zoom]));
    context.lineCap = "square";
    twice(() => context.stroke(outline), "white", 2);
  }
  if ($("worst").checked) {
    const worst = worstPatches(map);
    twice(() => worst.forEach((patch) => context.strokeRect(...cell(patch))), "#ffe600", 2);
    const size = Math.min(22 * dot, Math.max(11 * dot, 0.5 * cell(0)[3]));
    context.font = `bold ${size}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    worst.forEach((patch, i) => {
      const [x, y, across, down] = cell(patch), middle = [x + across / 2, y + down / 2];
      context.strokeStyle = "black";
      context.lineWidth = size / 4;
      context.strokeText(i + 1, ...middle);
      context.fillStyle = "#ffe600";
      context.fillText(i + 1, ...middle);
    });
  }
  if (state.patch !== null) twice(() => context.strokeRect(...cell(state.patch)), "#00e5ff", 3);
  legend(ends);
}

// Where patches begin and end on the canvas, in whole dots, so that no gaps show between them.
function edges(example, seen, zoom) {
  const [left, top, right, bottom] = example.box, [rows, cols] = example.grid;
  const cut = (first, last, count, start) =>
    Array.from({ length: count + 1 }, (_, i) => Math.round((first + ((last - first) * i) / count - start) * zoom));
  return [cut(left, right, cols, seen.x), cut(top, bottom, rows, seen.y)];
}

function legend(ends) {
  const bar = $("colours"), context = bar.getContext("2d");
  bar.width = 256;
  for (let i = 0; i < 256; i++) {
    context.fillStyle = `rgb(${colours[state.loss].slice(3 * i, 3 * i + 3).join(" ")})`;
    context.fillRect(i, 0, 1, bar.height);
  }
  const values = [0, 0.25, 0.5, 0.75, 1].map((share) => ends[0] + share * (ends[1] - ends[0]));
  $("ticks").replaceChildren(...values.map((value) => element("span", { textContent: value.toPrecision(2) })));
  $("unit").textContent = data.losses[state.loss].unit;
}

// What the patch under the pointer or the keys holds.
function tell(patch, outside = false) {
  const changed = patch !== state.patch, example = current();
  state.patch = patch;
  if (patch === null) {
    $("value").textContent = outside
      ? "The model did not see this part of the image."
      : "Point at a patch, or press Shift and an arrow, to read its value.";
  } else {
    const cols = example.grid[1], value = number(example.maps[state.loss][patch]);
    const share = example.covered ? `; ${percent(example.covered[patch])} of it in the answer mask` : "";
    const where = `row ${Math.floor(patch / cols) + 1}, column ${(patch % cols) + 1}`;
    $("value").textContent = `Patch in ${where}: ${data.losses[state.loss].name.toLowerCase()} ${value}${share}`;
  }
  if (changed) {
    document.querySelectorAll("tr[data-patch]").forEach((row) =>
      row.classList.toggle("under", Number(row.dataset.patch) === patch));
    draw();
  }
}

function point(event) {
  const example = current(), seen = view(example), shape = $("map").getBoundingClientRect();
  const x = seen.x + ((event.clientX - shape.left) / shape.width) * seen.width;
  const y = seen.y + ((event.clientY - shape.top) / shape.height) * seen.height;
  const [left, top, right, bottom] = example.box, [rows, cols] = example.grid;
  const col = Math.floor(((x - left) / (right - left)) * cols), row = Math.floor(((y - top) / (bottom - top)) * rows);
  const inside = col >= 0 && col < cols && row >= 0 && row < rows;
  tell(inside ? row * cols + col : null, !inside);
}

const verdict = (example) => ({ right: "✓ right", wrong: "✗ wrong" })[example.outcome] ?? "";
const scored = (example) => `${example.scored} ${example.score.toFixed(example.outcome ? 2 : 1)}`;
const kind = (example) => (example.outcome ? `${example.outcome} answers` : predicted(example) ? "captions" : "images");

function facts(example) {
  const heading = (text) => element("h2", { textContent: text });
  const text = (content, className = "") => element("p", { textContent: content, className });
  const list = (items) => element("ul", {}, ...items.map((item) => element("li", { textContent: item })));
  const cells = (values, kind) => values.map((value) => element(kind, { textContent: value }));
  const head = (...names) => element("thead", {}, element("tr", {}, ...cells(names, "th")));
  const means = data.losses.map((loss, i) => {
    const row = element("tr", {}, ...cells([loss.mean, ...example.means[i].map(number)], "td"));
    row.classList.toggle("shown", i === state.loss);
    return row;
  });
  const map = example.maps[state.loss], cols = example.grid[1];
  const worst = worstPatches(map).map((patch, i) => {
    const covered = example.covered ? percent(example.covered[patch]) : "–";
    const row = element("tr", {}, ...cells(
      [i + 1, Math.floor(patch / cols) + 1, (patch % cols) + 1, number(map[patch]), covered], "td"));
    row.dataset.patch = patch;
    row.addEventListener("pointerenter", () => tell(patch));
    row.addEventListener("pointerleave", () => tell(null));
    return row;
  });
  const told = predicted(example) ? [
    heading(example.outcome ? "Question" : "Prompt"), text(example.question),
    ...(example.options ? [element("ol", { type: "A" }, ...example.options.map((option) =>
      element("li", { textContent: option })))] : []),
    heading(example.outcome ? "Answer of the model" : "Caption of the model"),
    text(example.prediction || "(nothing)", "said"),
    element("p", {}, element("span", { textContent: verdict(example), className: example.outcome ?? "" }),
      example.outcome ? ", " : "", scored(example)),
    heading(example.options ? "Right answer" : example.outcome ? "People answered" : "People wrote"),
    list(example.references.map(([reference, times]) => (times > 1 ? `${reference} (${times} times)` : reference))),
  ] : [];
  $("facts").replaceChildren(
    ...told,
    heading("Where from"),
    text(`${example.model} on ${example.dataset}, image ${example.id}`),
    text(`Loss rank ${example.rank} of ${example.of} ${kind(example)}; ` +
      `reconstructed by ${example.reconstructor}`, "quiet"),
    heading("Mean loss"),
    element("table", {}, head("patches:", "answer's", "other", "all"), element("tbody", {}, ...means)),
    heading(`Ten worst patches by ${data.losses[state.loss].name.toLowerCase()}`),
    element("table", {}, head("", "row", "column", "value", "in mask"), element("tbody", {}, ...worst)),
  );
}

// Show the example at one place of the list.
function show(at, focus = false) {
  state.at = Math.max(0, Math.min(at, state.shown.length - 1));
  const example = current();
  state.patch = null;
  for (const id of ["viewer", "facts"]) $(id).hidden = !example;
  $("none").hidden = Boolean(example);
  const buttons = $("gallery").querySelectorAll("button");
  buttons.forEach((button, i) => (i === state.at ? (button.ariaCurrent = "true") : button.removeAttribute("aria-current")));
  $("count").textContent = example
    ? `${state.at + 1} of ${state.shown.length} shown · ${data.examples.length} in all`
    : `0 shown · ${data.examples.length} in all`;
  if (!example) return;
  buttons[state.at].scrollIntoView({ block: "nearest" });
  if (focus) buttons[state.at].focus({ preventScroll: true });
  $("map").ariaLabel = `${data.losses[state.loss].name} of ${example.model} on image ${example.id}: ` +
    `${example.grid.join(" by ")} patches. Shift and the arrow keys read them.`;
  $("mask").disabled = !example.outline;
  facts(example);
  tell(null);
  draw();
}

function card(example, at) {
  const button = element("button", { type: "button" },
    element("img", { src: data.images[example.image], alt: "", loading: "lazy" }),
    element("span", { textContent: example.outcome ? example.question : example.prediction ?? `image ${example.id}` }),
    element("span", { className: "quiet", textContent: `${example.model} · ${example.dataset}` }),
    element("span", {}, element("span", { className: example.outcome ?? "", textContent: verdict(example) }),
      example.outcome ? ` ${example.score.toFixed(2)} · ` : predicted(example) ? `${scored(example)} · ` : "",
      `loss ${number(level(example))}`));
  button.addEventListener("click", () => show(at));
  return element("li", {}, button);
}

function refresh(keep = current()) {
  const limit = (id, none) => ($(id).value === "" ? none : Number($(id).value));
  const within = (value, name) => {
    const low = limit(`${name}-from`, -Infinity), high = limit(`${name}-to`, Infinity);
    return value === null ? low === -Infinity && high === Infinity : value >= low && value <= high;
  };
  const is = (id, value) => !$(id).value || $(id).value === value;
  state.shown = data.examples.filter((example) =>
    is("model", example.model) && is("dataset", example.dataset) &&
    is("outcome", example.outcome ?? (predicted(example) ? "none" : "image")) &&
    within(example.score, "score") && within(level(example), "loss") &&
    example.words.includes($("text").value.trim().toLowerCase()));
  const [by, direction] = $("sort").value.split("-"), sign = direction === "down" ? -1 : 1;
  // CIDEr and accuracy have no common scale: examples with the same kind of score stay together.
  const order = {
    loss: (a, b) => sign * (level(a) - level(b)),
    score: (a, b) => (a.scored ?? "").localeCompare(b.scored ?? "") || sign * (a.score - b.score),
    model: (a, b) => a.model.localeCompare(b.model) || level(b) - level(a),
  };
  state.shown.sort(order[by]);
  $("gallery").replaceChildren(...state.shown.map(card));
  show(Math.max(0, state.shown.indexOf(keep)));
}

function choose(loss) {
  state.loss = loss;
  $("losses").querySelectorAll("button").forEach((button, i) => (button.ariaPressed = String(i === loss)));
  refresh();
}

function moveOnMap(key) {
  const [rows, cols] = current().grid, here = state.patch ?? 0;
  const [down, across] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key];
  const row = Math.floor(here / cols) + down, col = (here % cols) + across;
  if (state.patch === null) tell(0);
  else if (row >= 0 && row < rows && col >= 0 && col < cols) tell(row * cols + col);
}

function press(event) {
  const field = event.target.closest("input:not([type=checkbox]), select");
  if (field && event.key === "Escape") field.blur();
  if (field || event.ctrlKey || event.metaKey || event.altKey) return;
  const inGallery = $("gallery").contains(document.activeElement);
  const go = (at) => () => show(at, inGallery), flip = (id) => () => $(id).disabled || $(id).click();
  const fade = (by) => () => { $("opacity").value = Number($("opacity").value) + by; draw(); };
  const keys = {
    ArrowRight: go(state.at + 1), ArrowLeft: go(state.at - 1), Home: go(0), End: go(Infinity),
    ...(inGallery && { ArrowDown: go(state.at + 1), ArrowUp: go(state.at - 1) }),
    1: () => choose(0), 2: () => choose(1), 3: () => choose(2), "+": fade(10), "=": fade(10), "-": fade(-10),
    m: flip("mask"), w: flip("worst"), g: flip("grid"), s: flip("shared"),
    Escape: () => tell(null), "?": () => ($("help").open = !$("help").open),
  };
  const onMap = event.shiftKey && event.key.startsWith("Arrow");
  const act = onMap ? () => moveOnMap(event.key) : keys[event.key];
  if (!act || (!current() && event.key !== "?")) return;
  event.preventDefault();
  act();
}

$("study").textContent = `of study ${data.study}`;
$("rule").textContent = data.rule;
for (const id of ["answers", "scores"]) $(id).hidden = !data.examples.some(predicted);
for (const name of ["model", "dataset"]) {
  const names = [...new Set(data.examples.map((example) => example[name]))];
  $(name).append(new Option("all", ""), ...names.map((each) => new Option(each, each)));
}
$("losses").append(...data.losses.map((loss, i) => {
  const button = element("button", { type: "button", textContent: loss.name });
  button.addEventListener("click", () => choose(i));
  return button;
}));
$("filters").addEventListener("input", () => refresh());
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("reset", () => setTimeout(() => refresh())); // after the fields are empty
$("all").addEventListener("click", () => $("filters").reset());
for (const id of ["opacity", "mask", "worst", "grid", "shared"]) $(id).addEventListener("input", draw);
$("map").addEventListener("pointermove", point);
$("map").addEventListener("pointerdown", point);
$("map").addEventListener("pointerleave", () => tell(null));
document.addEventListener("keydown", press);
new ResizeObserver(draw).observe($("viewer"));
choose(0);
