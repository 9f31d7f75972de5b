"use strict";
// Everything from outside (questions, answers, names) enters the page as text, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
const number = (value) => (value === null ? "–" : value.toFixed(data.digits));
const percent = (value) => `${Math.round(value)}%`;
const counted = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const ANSWER = 0, OTHER = 1, WHOLE = 2; // the regions of an example's means

const colours = data.losses.map((loss) => bytes(loss.colours)); // 256 times red, green, blue
const photos = data.images.map((source) => Object.assign(new Image(), { src: source }));
photos.forEach((photo) => photo.addEventListener("load", () => photos[current()?.image] === photo && draw()));

const sameImage = new Map(), named = new Map(); // examples by the image, and by the name that links give them
for (const example of data.examples) {
  example.maps = example.maps.map((map) => new Float32Array(bytes(map).buffer));
  example.covered = example.covered && bytes(example.covered);
  example.outline = example.mask && outlineOf(example.mask);
  example.words = [example.id, example.question, example.prediction, ...example.references.map(([text]) => text)]
    .join("\n").toLowerCase();
  example.item = example.question_id ?? example.id;
  example.name = [example.model, example.dataset, example.task, example.item].join("/");
  example.place = [example.dataset, example.id].join("/");
  named.set(example.name, example);
  sameImage.set(example.place, [...(sameImage.get(example.place) ?? []), example]);
}
const models = [...new Set(data.examples.map((example) => example.model))];

const state = { shown: [], at: 0, loss: 0, point: null }; // point: x and y on the image
for (const example of data.examples) {
  example.views ??= [{ box: example.box, grid: example.grid, kind: "whole", start: 0 }];
  for (const kind of ["whole", "tile"]) {
    const same = example.views.filter((view) => view.kind === kind), alone = kind === "whole" && same.length === 1;
    same.forEach((view, i) => (view.name = (kind === "whole" ? "whole image" : "tile") + (alone ? "" : ` ${i + 1}`)));
  }
}
const current = () => state.shown[state.at];
// Nothing is predicted of images that nothing was asked about.
const predicted = (example) => example.prediction !== null;
const level = (example, region) => example.means[state.loss][region];

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// One example of this image for each model that has any: of the same question if it can be. In the models' order.
function versions(example) {
  const rank = (other) => (other === example ? 0 : other.task === example.task && other.item === example.item ? 1 : 2);
  const same = [...sameImage.get(example.place)].sort((a, b) => rank(a) - rank(b));
  return models.map((model) => same.find((other) => other.model === model)).filter(Boolean);
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

// Numbers of the patches of largest absolute value among those that are seen; equal ones in raster order.
function worstPatches(example, map) {
  return seenOf(example).sort((a, b) => Math.abs(map[b]) - Math.abs(map[a]) || a - b).slice(0, 10);
}

// The values that the ends of the colours mean: the same for all examples that are shown side by side.
function range(examples) {
  const same = data.examples.filter((other) => examples.some((example) => example.model === other.model));
  const maps = ($("shared").checked ? same : examples).map((other) => other.maps[state.loss]);
  const highest = (map) => map.reduce((most, value) => Math.max(most, Math.abs(value) || 0), 0); // NaN: no value
  const high = Math.max(...maps.map(highest)) || 1;
  return [data.losses[state.loss].signed ? -high : 0, high];
}

function colourOf(value, [low, high]) {
  const at = 3 * Math.min(255, Math.max(0, Math.floor((256 * (value - low)) / (high - low))));
  return `rgb(${colours[state.loss].slice(at, at + 3).join(" ")})`;
}

// What is shown: the image and all that the model saw, which may reach beyond it. In pixels of the image.
function scene(example) {
  const [lefts, tops, rights, bottoms] = [0, 1, 2, 3].map((edge) => example.views.map(({ box }) => box[edge]));
  const x = Math.min(0, ...lefts), y = Math.min(0, ...tops);
  return { x, y, width: Math.max(example.size[0], ...rights) - x, height: Math.max(example.size[1], ...bottoms) - y };
}

// Views that are drawn, the finest last: the chosen one, or all. Where views lie on one another, that of the smallest
// patches is seen; of equal ones the first. A patch without a value hides nothing.
function layers(example) {
  const chosen = example.views.find((view) => view.name === $("view").value);
  const area = ({ box, grid }) => ((box[2] - box[0]) / grid[1]) * ((box[3] - box[1]) / grid[0]);
  return chosen ? [chosen] : [...example.views].sort((a, b) => area(a) - area(b)).reverse();
}

// The numbers of the patches of a view that have a value.
const patchesIn = (example, { start, grid: [rows, cols] }) =>
  Array.from({ length: rows * cols }, (_, i) => start + i).filter((patch) => !Number.isNaN(example.maps[0][patch]));
// The numbers of those whose middle is seen.
const seenOf = (example) => layers(example).sort((a, b) => a.start - b.start)
  .flatMap((view) => patchesIn(example, view).filter((patch) => patchAt(example, middleOf(example, patch)) === patch));

// The patch of an example that is seen at a point of the image, or null.
function patchAt(example, point) {
  for (const { box: [left, top, right, bottom], grid: [rows, cols], start } of layers(example).reverse()) {
    const col = Math.floor(((point[0] - left) / (right - left)) * cols);
    const row = Math.floor(((point[1] - top) / (bottom - top)) * rows);
    const patch = start + row * cols + col;
    if (col >= 0 && col < cols && row >= 0 && row < rows && !Number.isNaN(example.maps[0][patch])) return patch;
  }
  return null;
}

// The view that a patch belongs to, and its row and column there.
function placeOf(example, patch) {
  const view = example.views.find(({ start, grid }) => patch >= start && patch < start + grid[0] * grid[1]);
  return { view, row: Math.floor((patch - view.start) / view.grid[1]), col: (patch - view.start) % view.grid[1] };
}

// A point of the image in a patch: its middle, or so many patches from there.
function middleOf(example, patch, across = 0, down = 0) {
  const { view: { box: [left, top, right, bottom], grid: [rows, cols] }, row, col } = placeOf(example, patch);
  return [left + ((col + 0.5 + across) * (right - left)) / cols, top + ((row + 0.5 + down) * (bottom - top)) / rows];
}

const compared = () => ($("beside").checked ? versions(current()) : [current()]);

// As many figures as there are examples to show; those that are there stay, so that none loses the focus.
function frames(examples) {
  const box = $("maps");
  while (box.children.length < examples.length) {
    const canvas = element("canvas", { role: "img" });
    for (const event of ["pointermove", "pointerdown"]) canvas.addEventListener(event, point);
    canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && tell(null)); // fingers leave at once
    box.append(element("figure", {}, canvas, element("figcaption")));
  }
  const inMaps = box.contains(document.activeElement);
  [...box.children].forEach((figure, i) => {
    const example = examples[i], canvas = figure.firstChild;
    figure.hidden = !example;
    figure.example = example;
    figure.classList.toggle("current", example === current());
    canvas.id = example && example === current() ? "map" : "";
    canvas.tabIndex = canvas.id ? 0 : -1;
    if (!example) return;
    canvas.ariaLabel = `${data.losses[state.loss].name} of ${example.model} on image ${example.id}: ` +
      `${example.views.map(({ grid }) => grid.join(" by ")).join(", ")} patches.` +
      (canvas.id ? " Shift and the arrow keys read them." : "");
    figure.lastChild.replaceChildren(...(examples.length > 1 ? caption(example) : []));
  });
  if (inMaps) $("map").focus({ preventScroll: true });
}

function caption(example) {
  const here = current(), mean = data.losses[state.loss].mean;
  const same = example.task === here.task && example.item === here.item;
  const line = (...children) => element("span", {}, ...children);
  const loss = `${mean}: ${number(level(example, WHOLE))} of the whole image` +
    (level(example, ANSWER) === null ? "" : `, ${number(level(example, ANSWER))} in the answer's patches`);
  return [element("b", { textContent: example.model }), ...(predicted(example) ? [
    ...(same ? [] : [line(`of another question: ${example.question}`)]),
    element("span", { textContent: example.prediction || "(nothing)", className: "answer" }),
    line(element("span", { className: example.outcome ?? "", textContent: verdict(example) }),
      `${example.outcome ? ", " : ""}${scored(example)}`)] : []), line(loss)];
}

function draw() {
  if (!current()) return;
  const examples = compared(), ends = range(examples), room = $("viewer").clientWidth - 36, gap = 16;
  const most = Math.max(1, Math.floor((room + gap) / (150 + gap))); // figures in a row
  const across = Math.ceil(examples.length / Math.ceil(examples.length / most));
  const widest = Math.floor((room - gap * (across - 1)) / across);
  for (const { firstChild: canvas, example } of $("maps").children) {
    if (!example) continue;
    const seen = scene(example);
    paint(canvas, example, ends, Math.min(widest, Math.max(280, 0.56 * innerHeight) * (seen.width / seen.height)));
  }
  legend(ends, examples.length > 1);
}

// Draw an example on a canvas that becomes `width` pixels of the page wide.
function paint(canvas, example, ends, width, dot = devicePixelRatio) {
  const context = canvas.getContext("2d"), seen = scene(example);
  canvas.style.width = `${width}px`;
  canvas.width = Math.round(width * dot);
  canvas.height = Math.round((canvas.width * seen.height) / seen.width);
  const zoom = canvas.width / seen.width;
  const shown = layers(example), map = example.maps[state.loss];
  const cuts = new Map(example.views.map((view) => [view, edges(view, seen, zoom)]));
  const cell = (patch) => {
    const { view, row, col } = placeOf(example, patch), [columnAt, rowAt] = cuts.get(view);
    return [columnAt[col], rowAt[row], columnAt[col + 1] - columnAt[col], rowAt[row + 1] - rowAt[row]];
  };
  // Of several views, what a finer one shows replaces what lies below it: they are drawn apart from the image.
  const layered = (drawn) => {
    if (shown.length === 1) return drawn(context, patchesIn(example, shown[0]));
    const apart = element("canvas", { width: canvas.width, height: canvas.height }), above = apart.getContext("2d");
    for (const view of shown) {
      const patches = patchesIn(example, view);
      patches.forEach((patch) => above.clearRect(...cell(patch)));
      drawn(above, patches);
    }
    context.globalAlpha = 1;
    context.drawImage(apart, 0, 0);
  };

  context.imageSmoothingQuality = "high";
  const place = [-seen.x * zoom, -seen.y * zoom, example.size[0] * zoom, example.size[1] * zoom];
  if (photos[example.image].complete) context.drawImage(photos[example.image], ...place);
  const unseen = new Path2D(); // by the model, or in the view that is chosen
  unseen.rect(0, 0, canvas.width, canvas.height);
  context.save();
  for (const view of shown) {
    const [columnAt, rowAt] = cuts.get(view), outside = new Path2D(unseen);
    outside.rect(columnAt[0], rowAt[0], columnAt.at(-1) - columnAt[0], rowAt.at(-1) - rowAt[0]);
    context.clip(outside, "evenodd");
  }
  context.fillStyle = "rgb(128 128 128 / .75)";
  context.fill(unseen);
  context.restore();
  // Towards zero the colours fade, so that they don't hide the image where there is nothing to see; not at full opacity.
  const opacity = $("opacity").value / 100;
  layered((on, patches) => patches.forEach((patch) => {
    const share = Math.max(1e-6, Math.min(1, Math.abs(map[patch]) / ends[1]));
    on.globalAlpha = opacity ** (0.5 / Math.sqrt(share));
    on.fillStyle = colourOf(map[patch], ends);
    on.fillRect(...cell(patch));
  }));
  context.globalAlpha = 1;
  const twice = (stroke, inner, width) => {
    for (const [colour, wide] of [["black", width + 2], [inner, width]]) {
      context.strokeStyle = colour;
      context.lineWidth = wide * dot;
      stroke();
    }
  };
  if ($("grid").checked) {
    layered((on, patches) => {
      on.strokeStyle = "rgb(255 255 255 / .6)";
      on.lineWidth = dot;
      patches.forEach((patch) => on.strokeRect(...cell(patch)));
    });
  }
  if ($("mask").checked && example.outline) {
    const outline = new Path2D();
    outline.addPath(example.outline, new DOMMatrix([zoom, 0, 0, zoom, -seen.x * zoom, -seen.y * zoom]));
    context.lineCap = "square";
    twice(() => context.stroke(outline), "white", 2);
  }
  if ($("worst").checked) {
    const worst = worstPatches(example, map);
    twice(() => worst.forEach((patch) => context.strokeRect(...cell(patch))), "#ffe600", 2);
    const size = Math.min(22 * dot, Math.max(11 * dot, 0.5 * Math.min(...worst.map((patch) => cell(patch)[3]))));
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
  const pointed = state.point && patchAt(example, state.point);
  if (pointed !== null) twice(() => context.strokeRect(...cell(pointed)), "#00e5ff", 3);
}

// Where patches begin and end on the canvas, in whole dots, so that no gaps show between them.
function edges({ box: [left, top, right, bottom], grid: [rows, cols] }, seen, zoom) {
  const cut = (first, last, count, start) =>
    Array.from({ length: count + 1 }, (_, i) => Math.round((first + ((last - first) * i) / count - start) * zoom));
  return [cut(left, right, cols, seen.x), cut(top, bottom, rows, seen.y)];
}

const ticks = (ends) =>
  [0, 0.25, 0.5, 0.75, 1].map((share) => (ends[0] + share * (ends[1] - ends[0])).toPrecision(2));

function legend(ends, several) {
  $("colours").width = 256;
  paintColours($("colours").getContext("2d"), 0, 0, 256, 12);
  $("ticks").replaceChildren(...ticks(ends).map((value) => element("span", { textContent: value })));
  $("unit").textContent = unit(several);
}

function unit(several) {
  const loss = data.losses[state.loss], more = loss.signed ? "; norms grow with a model's number of features" : "";
  return loss.unit + (several ? `. One scale for all maps${more}.` : "");
}

function paintColours(context, x, y, width, height) {
  for (let i = 0; i < 256; i++) {
    context.fillStyle = `rgb(${colours[state.loss].slice(3 * i, 3 * i + 3).join(" ")})`;
    const left = Math.round(x + (i * width) / 256);
    context.fillRect(left, y, Math.round(x + ((i + 1) * width) / 256) - left, height);
  }
}

// What the patches at a point of the image hold; null for none.
function tell(point) {
  const patch = point && patchAt(current(), point), examples = compared();
  const moved = String(point) !== String(state.point);
  state.point = point;
  $("value").textContent = point
    ? examples.map((example) => (examples.length > 1 ? `${example.model}: ` : "") + valueOf(example, point)).join("\n")
    : "Point at a patch, or press Shift and an arrow, to read its value.";
  if (!moved) return;
  document.querySelectorAll("tr[data-patch]").forEach((row) =>
    row.classList.toggle("under", Number(row.dataset.patch) === patch && patch !== null));
  draw();
}

function valueOf(example, point) {
  const patch = patchAt(example, point);
  if (patch === null) {
    const chosen = layers(example);
    return chosen.length < example.views.length
      ? `The ${chosen[0].name} does not show this part of the image.` : "The model did not see this part of the image.";
  }
  const share = example.covered ? `; ${percent(example.covered[patch])} of it in the answer mask` : "";
  const { view, row, col } = placeOf(example, patch), of = example.views.length > 1 ? ` of ${view.name}` : "";
  const where = `row ${row + 1}, column ${col + 1}${of}`;
  const loss = data.losses[state.loss].name.toLowerCase();
  return `Patch in ${where}: ${loss} ${number(example.maps[state.loss][patch])}${share}`;
}

function point(event) {
  const { example } = event.target.parentElement, seen = scene(example), shape = event.target.getBoundingClientRect();
  tell([seen.x + ((event.clientX - shape.left) / shape.width) * seen.width,
    seen.y + ((event.clientY - shape.top) / shape.height) * seen.height]);
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
  const map = example.maps[state.loss], several = example.views.length > 1;
  const worst = worstPatches(example, map).map((patch, i) => {
    const covered = example.covered ? percent(example.covered[patch]) : "–";
    const at = placeOf(example, patch), of = several ? [at.view.name] : [];
    const row = element("tr", {}, ...cells([i + 1, ...of, at.row + 1, at.col + 1, number(map[patch]), covered], "td"));
    row.dataset.patch = patch;
    row.addEventListener("pointerenter", () => tell(middleOf(example, patch)));
    row.addEventListener("pointerleave", () => tell(null));
    return row;
  });
  const answered = predicted(example) ? [
    heading(example.outcome ? "Question" : "Prompt"), text(example.question),
    ...(example.options ? [element("ol", { type: "A" }, ...example.options.map((option) =>
      element("li", { textContent: option })))] : []),
    heading(example.outcome ? "Answer of the model" : "Caption of the model"),
    text(example.prediction || "(nothing)", "answer"),
    element("p", {}, element("span", { textContent: verdict(example), className: example.outcome ?? "" }),
      example.outcome ? ", " : "", scored(example)),
    heading(example.options ? "Right answer" : example.outcome ? "People answered" : "People wrote"),
    list(example.references.map(([reference, times]) => (times > 1 ? `${reference} (${times} times)` : reference))),
  ] : [];
  $("facts").replaceChildren(
    ...answered,
    heading("Where from"),
    text(`${example.model} on ${example.dataset}, image ${example.id}`),
    text(`Loss rank ${example.rank} of ${example.of} ${kind(example)}, by squared error ` +
      `${example.covered ? "in the answer's patches" : "of the whole image"}; ` +
      `reconstructed by ${example.reconstructor}`),
    text(`Chosen by ${data.chosen[example.chosen_by]}.`, "quiet"),
    heading("Mean loss"),
    element("table", {}, head("patches:", "answer's", "other", "all"), element("tbody", {}, ...means)),
    heading(`Ten worst patches by ${data.losses[state.loss].name.toLowerCase()}`),
    element("table", {}, head("", ...(several ? ["view"] : []), "row", "column", "value", "in mask"),
      element("tbody", {}, ...worst)),
  );
}

// Show the example at one place of the list.
function show(at, focus = false) {
  state.at = Math.max(0, Math.min(at, state.shown.length - 1));
  const example = current(), matching = state.shown.length, all = data.examples.length;
  state.point = null;
  for (const id of ["viewer", "facts"]) $(id).hidden = !example;
  $("none").hidden = Boolean(example);
  $("previous").disabled = !(state.at > 0);
  $("next").disabled = !(state.at < matching - 1);
  $("csv").disabled = $("png").disabled = $("link").disabled = !example;
  $("count").textContent = `${matching} of ${counted(all, "example")} ${matching === 1 ? "matches" : "match"}` +
    (example ? `; example ${state.at + 1} of ${matching}` : "");
  const options = $("gallery").querySelectorAll("[role=option]");
  options.forEach((option, i) => {
    option.ariaSelected = String(i === state.at);
    option.tabIndex = i === state.at ? 0 : -1; // the list is one stop of the Tab key
  });
  write();
  if (!example) return;
  const option = options[state.at];
  const list = $("gallery").parentElement, shape = option.getBoundingClientRect(), room = list.getBoundingClientRect();
  if (shape.top < room.top) list.scrollTop -= room.top - shape.top; // of the list alone, not of the page
  if (shape.bottom > room.bottom) list.scrollTop += shape.bottom - room.bottom;
  if (focus) option.focus({ preventScroll: true });
  $("mask").disabled = !example.outline;
  offerViews(example);
  const held = versions(example).length;
  $("held").textContent = `(${counted(held, "model")})`;
  $("lonely").hidden = !$("beside").checked || held > 1;
  frames(compared());
  facts(example);
  tell(null);
  draw();
}

// The chooser holds the views of all examples, so that a link can name one; it offers those of this example.
function offerViews(example) {
  const names = ["", ...example.views.map((view) => view.name)];
  $("views").hidden = example.views.length < 2;
  for (const option of $("view").options) option.hidden = option.disabled = !names.includes(option.value);
  if (!names.includes($("view").value)) $("view").value = "";
}

function card(example, at, region) {
  const which = region === ANSWER && level(example, ANSWER) !== null ? ANSWER : WHOLE;
  const option = element("div", { role: "option" },
    element("img", { src: data.images[example.image], alt: "", loading: "lazy" }),
    element("span", { textContent: example.outcome ? example.question : example.prediction ?? `image ${example.id}` }),
    element("span", { className: "quiet", textContent: `${example.model} · ${example.dataset}` }),
    element("span", {}, element("span", { className: example.outcome ?? "", textContent: verdict(example) }),
      example.outcome ? ` ${example.score.toFixed(2)} · ` : predicted(example) ? `${scored(example)} · ` : "",
      `${which === ANSWER ? "answer" : "image"} loss ${number(level(example, which))}`));
  option.addEventListener("click", () => show(at, true));
  return option;
}

// The orders: what comes first, and of which part of the list an example is (losses of the answer's patches are not
// sorted among losses of whole images, nor CIDEr among accuracies).
const byLoss = (region, sign) => (a, b) => sign * (level(a, region) - level(b, region));
const byScore = (sign) => (a, b) => sign * (a.score - b.score);
const lacking = (example) =>
  (level(example, ANSWER) === null ? "Last: examples without patches of an answer, by loss of the whole image" : "");
const ORDERS = {
  "image-down": [byLoss(WHOLE, -1)],
  "image-up": [byLoss(WHOLE, 1)],
  "answer-down": [(a, b) => byLoss(lacking(a) ? WHOLE : ANSWER, -1)(a, b), lacking],
  "answer-up": [(a, b) => byLoss(lacking(a) ? WHOLE : ANSWER, 1)(a, b), lacking],
  "score-down": [byScore(-1), (example) => example.scored ?? "without score"],
  "score-up": [byScore(1), (example) => example.scored ?? "without score"],
  model: [byLoss(WHOLE, -1), (example) => example.model],
  together: [(a, b) => models.indexOf(a.model) - models.indexOf(b.model),
    (example) => `${counted(versions(example).length, "model")}: image ${example.id} of ${example.dataset}`,
    (a, b) => versions(b).length - versions(a).length],
};

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
    within(example.score, "score") && within(level(example, WHOLE), "loss") &&
    (!$("several").checked || versions(example).length > 1) &&
    example.words.includes($("text").value.trim().toLowerCase()));
  const [order, part = () => "", first = () => 0] = ORDERS[$("sort").value];
  state.shown.sort((a, b) => first(a, b) || part(a).localeCompare(part(b)) || order(a, b));
  const inside = $("gallery").contains(document.activeElement), parts = new Map();
  const region = $("sort").value.startsWith("answer") ? ANSWER : WHOLE;
  state.shown.forEach((example, at) => {
    const name = part(example);
    parts.set(name, [...(parts.get(name) ?? []), card(example, at, region)]);
  });
  $("gallery").replaceChildren(...[...parts].flatMap(([name, cards]) => {
    if (!name) return cards;
    const group = element("div", { role: "group", ariaLabel: name },
      element("div", { className: "head", ariaHidden: "true", textContent: name }), ...cards);
    return [group];
  }));
  show(Math.max(0, state.shown.indexOf(keep)), inside);
}

function choose(loss) {
  state.loss = loss;
  $("losses").querySelectorAll("button").forEach((button, i) => (button.ariaPressed = String(i === loss)));
  refresh();
}

// Links: what is not as the page opens stands behind #.

const fields = () => document.querySelectorAll(":is(#filters, #controls) :is(input, select)");
const valueIn = (field) => (field.type === "checkbox" ? String(Number(field.checked)) : field.value);
const openingValue = (field) =>
  field.type === "checkbox" ? String(Number(field.defaultChecked)) : field.options?.[0].value ?? field.defaultValue;

function hash() {
  const params = new URLSearchParams();
  if (current()) params.set("example", current().name);
  if (state.loss) params.set("loss", data.losses[state.loss].key);
  for (const field of fields()) if (valueIn(field) !== openingValue(field)) params.set(field.id, valueIn(field));
  return `#${String(params).replaceAll("%2F", "/")}`;
}

function restore() {
  const params = new URLSearchParams(location.hash.slice(1)), example = named.get(params.get("example"));
  for (const field of fields()) {
    const wanted = params.get(field.id), opening = openingValue(field);
    if (field.type === "checkbox") field.checked = (wanted ?? opening) === "1";
    else field.value = wanted ?? opening;
    if (field.options && field.selectedIndex < 0) field.value = opening; // a model that the page has not
  }
  state.loss = Math.max(0, data.losses.findIndex((loss) => loss.key === params.get("loss")));
  state.at = 0;
  $("losses").querySelectorAll("button").forEach((button, i) => (button.ariaPressed = String(i === state.loss)));
  refresh(example);
  if (params.has("example") && !(example && current() === example)) {
    say(example ? "The link's example does not fit its filters." : "The link's example is not on this page.");
  }
}

let waiting; // browsers limit how often an address may change
function write() {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    try {
      history.replaceState(null, "", hash());
    } catch { /* a page without an address of its own, in a frame; links are copied all the same */ }
  }, 150);
}

function say(text) {
  $("done").textContent = text;
  clearTimeout(say.waiting);
  say.waiting = setTimeout(() => ($("done").textContent = ""), 5000);
}

async function copyLink() {
  const link = location.href.split("#")[0] + hash();
  try {
    await navigator.clipboard.writeText(link);
    say("Link copied.");
  } catch {
    prompt("The link to this example:", link); // where the browser does not let the page copy
  }
}

// Exports.

function save(content, name) {
  const address = URL.createObjectURL(content);
  element("a", { href: address, download: name.replace(/[^\w.-]+/g, "_") }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  say("Saved.");
}

function table() {
  const cell = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const parts = [["", WHOLE], ["_answer", ANSWER], ["_other", OTHER]];
  const rows = state.shown.map((example) => ({
    model: example.model, dataset: example.dataset, task: example.task, image_id: example.id,
    question_id: example.question_id, chosen_by: example.chosen_by, question: example.question,
    options: example.options && JSON.stringify(example.options), prediction: example.prediction,
    references: JSON.stringify(example.references), score_name: example.scored, score: example.score,
    outcome: example.outcome, reconstructor: example.reconstructor, rank: example.rank, of: example.of,
    ...Object.fromEntries(data.losses.flatMap((loss, i) =>
      parts.map(([end, region]) => [loss.column + end, example.means[i][region]]))),
  }));
  return [Object.keys(rows[0]), ...rows.map(Object.values)]
    .map((row) => row.map((value) => cell(String(value ?? ""))).join(",") + "\r\n").join("");
}

// The maps as they are shown, with what they are of, and their colours.
function picture() {
  const examples = compared(), ends = range(examples), here = current(), side = 480, dot = 2, gap = 24;
  const maps = examples.map((example) => {
    const canvas = element("canvas"), seen = scene(example);
    paint(canvas, example, ends, Math.min(side, side * (seen.width / seen.height)), dot);
    return canvas;
  });
  const whole = element("canvas"), context = whole.getContext("2d");
  const step = side * dot + gap * dot, margin = gap * dot, wide = side * dot;
  const tall = Math.max(...maps.map((map) => map.height)), line = 22 * dot;
  const question = predicted(here) && here.question ? [here.question] : [];
  const titles = [`${data.losses[state.loss].name}, image ${here.id} of ${here.dataset}`, ...question];
  const words = examples.map((example) => [example.model, ...(predicted(example) ? [
    example.prediction || "(nothing)", `${verdict(example)}${example.outcome ? ", " : ""}${scored(example)}`] : [])]);
  const under = Math.max(...words.map((lines) => lines.length));
  whole.width = margin + step * maps.length;
  whole.height = 2 * margin + line * (titles.length + under + 2.5) + tall + 14 * dot;
  context.fillStyle = "white";
  context.fillRect(0, 0, whole.width, whole.height);
  const put = (text, x, y, most, bold = "", align = "left") => {
    context.font = `${bold} ${14 * dot}px system-ui, sans-serif`;
    context.textAlign = align;
    context.textBaseline = "top";
    context.fillStyle = "#1b1f24";
    let shown = text;
    while (context.measureText(shown).width > most) shown = `${shown.replace(/…$/, "").slice(0, -1)}…`;
    context.fillText(shown, x, y);
  };
  titles.forEach((title, i) => put(title, margin, margin + i * line, whole.width - 2 * margin, i ? "" : "bold"));
  let y = margin + titles.length * line + 6 * dot;
  maps.forEach((map, i) => {
    context.drawImage(map, margin + i * step, y);
    words[i].forEach((text, k) => put(text, margin + i * step, y + tall + 8 * dot + k * line, wide, k ? "" : "bold"));
  });
  y += tall + under * line + 20 * dot;
  paintColours(context, margin, y, wide, 14 * dot);
  const aligned = ["left", "center", "center", "center", "right"];
  ticks(ends).forEach((value, i) => put(value, margin + (i * wide) / 4, y + 18 * dot, wide, "", aligned[i]));
  return whole;
}

function savePicture() {
  const here = current(), parts = [data.study, here.dataset, here.id, compared().length > 1 ? "models" : here.model];
  picture().toBlob((content) => save(content, `${[...parts, data.losses[state.loss].key].join("-")}.png`));
}

function moveOnMap(key) {
  const example = current(), here = state.point && patchAt(example, state.point);
  const [down, across] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key];
  const middle = (patch) => patch !== null && tell(middleOf(example, patch));
  if (here === null) return middle(seenOf(example)[0] ?? null);
  const beside = patchAt(example, middleOf(example, here, across, down));
  if (beside === null) return;
  const { view } = placeOf(example, here);
  // Into another view, whose patches are of another size: the one right beyond the edge.
  middle(placeOf(example, beside).view === view
    ? beside : patchAt(example, middleOf(example, here, 0.51 * across, 0.51 * down)) ?? beside);
}

function press(event) {
  const field = event.target.closest("input:not([type=checkbox]), select");
  if (field && event.key === "Escape") field.blur();
  if (field || event.ctrlKey || event.metaKey || event.altKey) return;
  const inGallery = $("gallery").contains(document.activeElement);
  const go = (at) => () => show(at, inGallery), flip = (id) => () => $(id).disabled || $(id).click();
  const fade = (by) => () => { $("opacity").value = Number($("opacity").value) + by; changed(); };
  const letters = {
    1: () => choose(0), 2: () => choose(1), 3: () => choose(2), "+": fade(10), "=": fade(10), "-": fade(-10),
    m: flip("mask"), w: flip("worst"), g: flip("grid"), s: flip("shared"), c: flip("beside"), l: copyLink,
    "?": () => ($("help").open = !$("help").open),
  };
  const keys = {
    ArrowRight: go(state.at + 1), ArrowLeft: go(state.at - 1), Home: go(0), End: go(Infinity),
    ...(inGallery && { ArrowDown: go(state.at + 1), ArrowUp: go(state.at - 1) }),
    Escape: () => { tell(null); $("help").open = false; }, ...($("letters").checked && letters),
  };
  const onMap = event.shiftKey && event.key.startsWith("Arrow");
  const act = onMap ? () => moveOnMap(event.key) : keys[event.key];
  if (!act || (!current() && event.key !== "?")) return;
  event.preventDefault();
  act();
}

function changed() { // in how maps are drawn
  draw();
  write();
}

$("study").textContent = `of study ${data.study}`;
$("rules").replaceChildren(...data.rules.map((rule) => element("p", { textContent: rule })));
for (const id of ["answers", "scores"]) $(id).hidden = !data.examples.some(predicted);
for (const label of [$("models"), $("beside").parentElement]) label.hidden = models.length < 2;
for (const name of ["model", "dataset"]) {
  const names = [...new Set(data.examples.map((example) => example[name]))];
  $(name).append(new Option("all", ""), ...names.map((each) => new Option(each, each)));
}
const viewed = data.examples.filter((example) => example.views.length > 1).flatMap((example) => example.views);
const viewNames = [...new Set(viewed.map((view) => view.name))];
$("view").append(new Option("finest patches", ""), ...viewNames.map((name) => new Option(name, name)));
$("losses").append(...data.losses.map((loss, i) => {
  const button = element("button", { type: "button", textContent: loss.name });
  button.addEventListener("click", () => choose(i));
  return button;
}));
// In a new order the first is shown; what is filtered keeps the example, if it can.
$("filters").addEventListener("input", (event) => refresh(event.target.id === "sort" ? null : undefined));
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("reset", () => setTimeout(() => refresh())); // after the fields are empty
$("all").addEventListener("click", () => $("filters").reset());
$("previous").addEventListener("click", () => show(state.at - 1));
$("next").addEventListener("click", () => show(state.at + 1));
$("link").addEventListener("click", copyLink);
$("csv").addEventListener("click", () => save(new Blob([table()], { type: "text/csv" }), `${data.study}-examples.csv`));
$("png").addEventListener("click", savePicture);
for (const id of ["opacity", "mask", "worst", "grid", "shared"]) $(id).addEventListener("input", changed);
for (const id of ["beside", "view"]) $(id).addEventListener("input", () => show(state.at));
document.addEventListener("keydown", press);
addEventListener("hashchange", restore);
const narrow = matchMedia("(max-width: 44rem)");
const fold = () => ($("sorting").open = !narrow.matches); // on a phone, the map comes first
narrow.addEventListener("change", fold);
fold();
new ResizeObserver(draw).observe($("viewer"));
restore();
