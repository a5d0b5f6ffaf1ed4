// The page: choose an image, see its objects and the attention behind each of them.

import * as api from "./api.js";
import { bytesOf, colorOf, drawHead, drawScene } from "./drawing.js";

const LEAST = 0.05; // objects below are not asked for; the slider begins here
const EXPLAINED = 50; // queries whose attention is asked for, the most the server gives
const CAMERA_SIDE = 640; // pixels

const $ = (id) => document.getElementById(id);
const state = {
  model: null,
  image: null, // ImageBitmap
  blob: null, // the file that it came from
  name: "image",
  answer: null,
  attention: null, // of the image, in one layer
  asked: null, // the promise of the attention
  chosen: null, // an object
  hidden: new Set(), // ids of classes that are switched off
  sample: 0,
  request: 0,
};

function say(text, error = "") {
  $("status").textContent = text;
  $("error").textContent = error;
}

function shown() {
  if (!state.answer) return [];
  const least = Number($("threshold").value);
  return state.answer.images[0].objects.filter((each) => each.score >= least && !state.hidden.has(each.category_id));
}

// --- show ---

function draw() {
  if (!state.image) return;
  const points = $("points").checked ? state.attention?.reference_points : null;
  drawScene($("canvas"), state.image, shown(), { chosen: state.chosen, points });
}

function show() {
  const objects = shown();
  if (state.chosen && !objects.includes(state.chosen)) state.chosen = null;
  draw();
  const body = $("objects").tBodies[0];
  body.replaceChildren(...objects.map(row));
  const everything = state.answer?.images[0];
  if (everything) {
    const count = `${objects.length} ${objects.length === 1 ? "object" : "objects"}`;
    $("canvas").setAttribute("aria-label", `${state.name} with ${count}; the table lists them`);
    const remark = objects.length ? "" : `; the best score in this image is ${everything.best_score.toFixed(2)}`;
    say(`${count} with a score from ${Number($("threshold").value).toFixed(2)}${remark}`);
  }
  for (const id of ["save-json", "save-picture"]) $(id).disabled = !everything;
}

function row(object) {
  const line = document.createElement("tr");
  line.tabIndex = 0;
  const texts = [object.category_name, object.score.toFixed(3), object.box.map((value) => value.toFixed(0)).join(", ")];
  for (const text of texts) line.insertCell().textContent = text;
  line.classList.toggle("chosen", object === state.chosen);
  line.addEventListener("focus", () => choose(object));
  line.addEventListener("mouseenter", () => choose(object));
  line.addEventListener("keydown", (event) => {
    const next = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (!next) return;
    event.preventDefault();
    line[next]?.focus();
  });
  line.object = object;
  return line;
}

function showClasses() {
  const found = new Map(state.answer.images[0].objects.map((each) => [each.category_id, each.category_name]));
  $("classes").hidden = found.size < 2;
  const labels = [...found].sort((a, b) => a[0] - b[0]).map(([id, name]) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    const swatch = document.createElement("span");
    box.type = "checkbox";
    box.checked = !state.hidden.has(id);
    box.addEventListener("change", () => {
      box.checked ? state.hidden.delete(id) : state.hidden.add(id);
      show();
    });
    swatch.className = "swatch";
    swatch.style.backgroundColor = colorOf(id);
    label.append(box, swatch, name);
    return label;
  });
  $("class-list").replaceChildren(...labels);
}

// --- attention ---

function choose(object) {
  if (state.chosen === object) return;
  state.chosen = object;
  for (const line of $("objects").tBodies[0].rows) line.classList.toggle("chosen", line.object === object);
  draw();
  if (object) explain();
}

async function explain() {
  if (!state.model?.attention || camera.stream) return;
  const attention = await askAttention();
  if (!attention || !state.chosen) return;
  draw();
  const query = nearest(attention.queries, state.chosen);
  if (!query) {
    $("attention-hint").textContent = `Attention is shown for the ${EXPLAINED} most confident queries.`;
    $("heads").replaceChildren();
    return;
  }
  const point = attention.reference_points?.[query.query];
  $("attention-hint").textContent =
    `Query ${query.query}: ${query.category_name} ${query.score.toFixed(2)}, decoder layer ${attention.layer} of ${attention.layers}` +
    (point ? "; the blue dot is its reference point" : "");
  const values = bytesOf(query[$("part").value]);
  const cells = attention.rows * attention.columns;
  while ($("heads").children.length < attention.heads) $("heads").append(head($("heads").children.length + 1));
  for (let i = 0; i < attention.heads; i++) {
    const canvas = $("heads").children[i].firstChild;
    drawHead(canvas, state.image, values.subarray(i * cells, (i + 1) * cells), attention, state.chosen, point);
  }
}

function head(number) {
  const figure = document.createElement("figure");
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Attention map of head ${number}`);
  const caption = document.createElement("figcaption");
  caption.textContent = `head ${number}`;
  figure.append(canvas, caption);
  return figure;
}

// One request for each image and layer, when it is first looked at.
function askAttention() {
  if (state.attention) return state.attention;
  if (state.asked || !state.blob) return state.asked;
  const request = state.request;
  const layer = $("layer").value;
  const top = Math.min(EXPLAINED, state.model.architecture.queries);
  state.asked = api
    .attention(state.blob, state.name, layer, top)
    .then((found) => {
      if (request !== state.request || layer !== $("layer").value) return null;
      state.attention = found;
      return found;
    })
    .catch((error) => {
      say("", error.message);
      return null;
    })
    .finally(() => (state.asked = null));
  return state.asked;
}

// The query of an object is the one with its box, apart from rounding.
function nearest(queries, object) {
  const distance = (query) => Math.max(...query.box.map((value, i) => Math.abs(value - object.box[i])));
  const best = queries.reduce((a, b) => (distance(b) < distance(a) ? b : a), queries[0]);
  return best && distance(best) < 2 ? best : null;
}

// --- images ---

async function open(blob, name) {
  const request = ++state.request;
  say("looking");
  let image;
  try {
    image = await createImageBitmap(blob);
  } catch {
    image = null; // the browser can't show it; the server's answer says what is wrong with it
  }
  try {
    const began = performance.now();
    const answer = await api.detect(blob, name, LEAST);
    if (request !== state.request) return;
    if (!image) throw new Error(`${name} can't be shown by this browser; the server found ${answer.images[0].objects.length} objects in it`);
    take(image, blob, name, answer, performance.now() - began);
  } catch (error) {
    if (request === state.request) say("", error.message);
  }
}

function take(image, blob, name, answer, elapsed) {
  Object.assign(state, { image, blob, name, answer, attention: null, asked: null, chosen: null });
  $("canvas").hidden = false;
  $("hint").hidden = true;
  $("drop").classList.add("filled");
  $("heads").replaceChildren();
  $("attention-hint").textContent = "Point at a box, or move to a row of the table.";
  const { decode, queue, model, total } = answer.milliseconds;
  const parts = [["decode", decode], ["queue", queue], ["model", model]].map(([part, ms]) => `${part} ${ms.toFixed(0)}`).join(", ");
  $("latency").textContent = `${elapsed.toFixed(0)} ms; in the server ${total.toFixed(0)} ms (${parts})`;
  showClasses();
  show();
  if ($("points").checked) showPoints();
}

async function showPoints() {
  if ($("points").checked && state.image && state.model?.attention) await askAttention();
  draw();
}

// --- camera ---

const camera = { stream: null };

async function startCamera() {
  if (!navigator.mediaDevices?.getUserMedia) {
    say("", "This browser gives no camera to pages that are not on localhost or https.");
    return;
  }
  try {
    camera.stream = await navigator.mediaDevices.getUserMedia({ video: { width: CAMERA_SIDE } });
  } catch (error) {
    say("", `The camera can't be used (${error.message || error.name}).`);
    return;
  }
  $("camera").setAttribute("aria-pressed", "true");
  $("camera").textContent = "Stop camera";
  const video = $("video");
  video.srcObject = camera.stream;
  await video.play();
  const frame = document.createElement("canvas");
  while (camera.stream) {
    frame.width = video.videoWidth;
    frame.height = video.videoHeight;
    frame.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((resolve) => frame.toBlob(resolve, "image/jpeg", 0.85));
    await open(blob, "camera.jpg");
    await new Promise((resolve) => setTimeout(resolve, $("error").textContent ? 1000 : 0));
  }
}

function stopCamera() {
  for (const track of camera.stream?.getTracks() ?? []) track.stop();
  camera.stream = null;
  $("camera").setAttribute("aria-pressed", "false");
  $("camera").textContent = "Camera";
}

// --- events ---

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function stem() {
  return state.name.replace(/\.[^.]*$/, "");
}

$("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) open(file, file.name);
  event.target.value = "";
});
$("sample").addEventListener("click", async () => {
  try {
    const blob = await api.sample(state.sample++);
    await open(blob, `sample-${state.sample}.jpg`);
  } catch (error) {
    say("", error.message);
  }
});
$("camera").addEventListener("click", () => (camera.stream ? stopCamera() : startCamera()));
$("drop").addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) open(file, file.name);
  else say("", "That is no file; drop an image file.");
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
  if (file) open(file, file.name || "pasted.png");
});
$("threshold").addEventListener("input", () => {
  $("threshold-value").textContent = Number($("threshold").value).toFixed(2);
  show();
});
$("points").addEventListener("change", showPoints);
$("part").addEventListener("change", explain);
$("layer").addEventListener("change", () => {
  state.attention = null;
  state.asked = null;
  explain();
});
$("canvas").addEventListener("mousemove", (event) => {
  const place = $("canvas").getBoundingClientRect();
  const x = ((event.clientX - place.left) / place.width) * state.image.width;
  const y = ((event.clientY - place.top) / place.height) * state.image.height;
  const area = ({ box: [x0, y0, x1, y1] }) => (x1 - x0) * (y1 - y0);
  const under = shown().filter(({ box: [x0, y0, x1, y1] }) => x0 <= x && x <= x1 && y0 <= y && y <= y1);
  if (under.length) choose(under.reduce((a, b) => (area(b) < area(a) ? b : a)));
});
$("save-json").addEventListener("click", () => {
  const image = { ...state.answer.images[0], objects: shown() };
  const answer = { ...state.answer, images: [image] };
  save(new Blob([JSON.stringify(answer, null, 2)], { type: "application/json" }), `${stem()}.json`);
});
$("save-picture").addEventListener("click", () => {
  const canvas = document.createElement("canvas");
  drawScene(canvas, state.image, shown());
  canvas.toBlob((blob) => save(blob, `${stem()}-objects.png`), "image/png");
});

async function begin() {
  try {
    state.model = await api.model();
  } catch (error) {
    say("", error.message);
    $("model").textContent = "not connected";
    return;
  }
  const { name, version, runtime, categories, threshold, layers } = state.model;
  const classes = categories.length === 1 ? "1 class" : `${categories.length} classes`;
  $("model").textContent = `${name}, version ${version}: ${classes}, runs with ${runtime}`;
  document.title = `${name}: Conditional DETR`;
  $("threshold").value = threshold;
  $("threshold-value").textContent = Number($("threshold").value).toFixed(2);
  $("attention").hidden = !state.model.attention;
  $("points").closest(".row").hidden = !state.model.attention;
  for (let i = layers; i >= 1; i--) $("layer").add(new Option(`${i}`, `${i}`));
}

begin();
