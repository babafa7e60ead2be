// A memory as an image of its dimensions. It owns the edits; the page gets them as part of its value, and sends vectors.
const canvas = element.querySelector("canvas");
const place = element.querySelector("input[type=number]");
const slider = element.querySelector("input[type=range]");
const told = element.querySelector("output");
const undo = element.querySelector("button");
const LARGEST = 4;
let chosen = 0, edits = {}, key = null;

const cells = () => props.value.vector.length;
const columns = () => props.value.columns;
const colour = name => getComputedStyle(element).getPropertyValue(name).trim();

function paint() {
  const vector = props.value.vector, across = columns(), down = Math.ceil(vector.length / across);
  const size = Math.max(4, Math.floor(960 / across));
  canvas.width = across * size;
  canvas.height = Math.max(1, down) * size;
  const pen = canvas.getContext("2d");
  const [low, middle, high, ink] = ["--cell-low", "--cell-middle", "--cell-high", "--ink"].map(colour).map(parse);
  vector.forEach((value, i) => {
    const strength = Math.min(1, Math.abs(value) / 2.5), end = value < 0 ? low : high;
    pen.fillStyle = `rgb(${middle.map((m, c) => Math.round(m + (end[c] - m) * strength)).join(" ")})`;
    pen.fillRect((i % across) * size, Math.floor(i / across) * size, size - 1, size - 1);
  });
  pen.strokeStyle = `rgb(${ink.join(" ")})`;
  Object.keys(edits).forEach(i => outline(pen, +i, size, across, 2));
  if (props.editable && vector.length) outline(pen, chosen, size, across, 4);
  undo.hidden = !Object.keys(edits).length;
  tell();
}

function parse(hex) {
  return [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16) || 0);
}

function outline(pen, i, size, across, width) {
  pen.lineWidth = width;
  const inset = width / 2;
  pen.strokeRect((i % across) * size + inset, Math.floor(i / across) * size + inset, size - 1 - width, size - 1 - width);
}

function tell() {
  const value = props.value.vector[chosen];
  place.max = cells() - 1;
  place.value = chosen;
  if (value === undefined) { told.textContent = ""; return; }
  slider.value = value;
  slider.setAttribute("aria-valuetext", value.toFixed(2));
  told.textContent = value.toFixed(2) + (chosen in edits ? " (edited)" : "");
}

function choose(i) {
  chosen = Math.max(0, Math.min(cells() - 1, i));
  paint();
}

function edit(value) {
  edits[chosen] = Math.max(-LARGEST, Math.min(LARGEST, value));
  send();
}

function send() {
  const vector = [...props.value.vector];
  for (const [i, value] of Object.entries(edits)) vector[i] = value;
  props.value = { ...props.value, vector, edits: { ...edits } };
  paint();
  trigger("input");
}

canvas.addEventListener("click", event => {
  const box = canvas.getBoundingClientRect(), down = Math.ceil(cells() / columns());
  const x = Math.floor((event.clientX - box.left) / box.width * columns());
  choose(Math.floor((event.clientY - box.top) / box.height * down) * columns() + x);
});
canvas.addEventListener("keydown", event => {
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() }[event.key];
  const change = { "+": 0.25, "=": 0.25, "-": -0.25 }[event.key];
  if (step) choose(chosen + step);
  else if (change && props.editable) edit((props.value.vector[chosen] ?? 0) + change);
  else return;
  event.preventDefault();
});
place.addEventListener("change", () => choose(Math.round(+place.value) || 0));
slider.addEventListener("input", () => edit(+slider.value));
undo.addEventListener("click", () => { edits = {}; send(); });
watch("value", () => {
  if (props.value.key !== key) { key = props.value.key; edits = {}; chosen = Math.min(chosen, Math.max(0, cells() - 1)); }
  // While a slider is moved, what comes back is of a moment ago.
  for (const [i, value] of Object.entries(edits)) props.value.vector[i] = value;
  paint();
});
new MutationObserver(paint).observe(document.body, { attributes: true, attributeFilter: ["class"] });
key = props.value.key;
paint();
