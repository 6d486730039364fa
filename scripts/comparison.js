// Pictures: original and results on a stage, with a slider between any two of them.

const stage = $("#stage"), slider = $("#slider"), canvas = $("#difference");
const sides = { left: $("#left"), right: $("#right") };
// What is shown: `zoom` is device pixels to a pixel of the picture; `x`, `y` is where on the stage
// its corner lies, in CSS pixels; `border` is the place of the slider, 0 to 1.
const state = {
  picture: 0, left: 0, right: 1, view: "slider", border: 0.5, gain: 8,
  zoom: 1, x: 0, y: 0, fitted: true,
};

const picture = () => data.pictures[state.picture];

/** Original and results of the picture, in the order of the table. */
function versions() {
  const { bytes, width, height, original, results } = picture();
  const name = { codec: "original", src: original, bytes, bpp: (8 * bytes) / width / height };
  return [name, ...results];
}

// ---- zoom and pan, the same for everything on the stage

const density = () => window.devicePixelRatio || 1;

function place() {
  const scale = state.zoom / density();
  const snap = (value) => Math.round(value * density()) / density();
  const transform = `translate(${snap(state.x)}px, ${snap(state.y)}px) scale(${scale})`;
  for (const shown of document.querySelectorAll(".layer img, canvas")) {
    shown.style.transform = transform;
    shown.style.backgroundSize = `${20 / scale}px ${20 / scale}px`; // squares of one size
  }
  stage.classList.toggle("pixels", state.zoom >= 1);
  $("#zoom").textContent = `${Math.round(state.zoom * 100)} %`;
}

/** All of the picture: whole multiples of its size where it is smaller than the stage. */
function fit() {
  const { width, height } = picture();
  const most = density() * Math.min(stage.clientWidth / width, stage.clientHeight / height);
  state.zoom = most >= 1 ? Math.floor(most) : most;
  state.x = (stage.clientWidth - (width * state.zoom) / density()) / 2;
  state.y = (stage.clientHeight - (height * state.zoom) / density()) / 2;
  state.fitted = true;
  place();
}

/** Zoom so that the point (x, y) of the stage stays where it is. */
function zoomTo(zoom, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const ratio = clamp(zoom, 0.02, 64) / state.zoom;
  state.x = x - (x - state.x) * ratio;
  state.y = y - (y - state.y) * ratio;
  state.zoom *= ratio;
  state.fitted = false;
  place();
}

function pan(dx, dy) {
  state.x += dx;
  state.y += dy;
  state.fitted = false;
  place();
}

const zooms = {
  in: () => zoomTo(state.zoom * 2 ** 0.5),
  out: () => zoomTo(state.zoom / 2 ** 0.5),
  one: () => zoomTo(1),
  fit,
};

stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const { left, top } = stage.getBoundingClientRect();
  const lines = event.deltaMode ? 30 : 1;
  const factor = 2 ** (-clamp(event.deltaY * lines, -200, 200) / (event.ctrlKey ? 100 : 250));
  zoomTo(state.zoom * factor, event.clientX - left, event.clientY - top);
}, { passive: false });

stage.addEventListener("dblclick", (event) => {
  const { left, top } = stage.getBoundingClientRect();
  if (state.fitted) zoomTo(Math.max(1, state.zoom * 2), event.clientX - left, event.clientY - top);
  else fit();
});

// One finger or the mouse pans or moves the slider, two fingers zoom.
const pointers = new Map();
let dragged = null;

stage.addEventListener("pointerdown", (event) => {
  stage.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, event);
  if (pointers.size === 1) dragged = slider.contains(event.target) ? "slider" : "picture";
  if (dragged === "slider") slider.focus({ preventScroll: true });
  event.preventDefault();
});

stage.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const { left, top, width } = stage.getBoundingClientRect();
  const other = [...pointers.values()].find((one) => one.pointerId !== event.pointerId);
  if (other) {
    const span = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    zoomTo((state.zoom * span(event)) / Math.max(1, span(before)),
      other.clientX - left, other.clientY - top);
  } else if (dragged === "slider") {
    moveBorder((event.clientX - left) / width);
  } else {
    pan(event.clientX - before.clientX, event.clientY - before.clientY);
  }
  pointers.set(event.pointerId, event);
});

for (const kind of ["pointerup", "pointercancel"]) {
  stage.addEventListener(kind, (event) => pointers.delete(event.pointerId));
}

// ---- what is on the stage

function moveBorder(border) {
  state.border = clamp(border, 0, 1);
  const percent = state.border * 100;
  sides.left.style.clipPath = `inset(0 ${100 - percent}% 0 0)`;
  sides.right.style.clipPath = `inset(0 0 0 ${percent}%)`;
  slider.style.left = `${percent}%`;
  slider.setAttribute("aria-valuenow", Math.round(percent));
}

function tag(side) {
  const { codec, bpp, psnr_db } = versions()[state[side]];
  const figures = [`${number(bpp, 3)} bpp`];
  if (psnr_db !== undefined) figures.push(`${number(psnr_db, 2)} dB`);
  $(`#${side}-tag`).replaceChildren(element("b", {}, codec), " ", figures.join(" · "));
}

async function samples(src) {
  const image = new Image();
  image.src = src;
  await image.decode();
  const { width, height } = picture();
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.fillStyle = "#808080"; // under what is transparent
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, width, height);
}

/** Draw the amplified absolute difference of the two sides. */
async function drawDifference() {
  const wanted = [state.picture, state.left, state.right, state.gain].join();
  if (canvas.dataset.shows === wanted) return;
  canvas.dataset.shows = wanted;
  const all = versions();
  const [a, b] = await Promise.all([samples(all[state.left].src), samples(all[state.right].src)]);
  if (canvas.dataset.shows !== wanted) return; // something else was asked for meanwhile
  let largest = 0;
  for (let i = 0; i < a.data.length; i += 1) {
    if (i % 4 === 3) continue;
    const difference = Math.abs(a.data[i] - b.data[i]);
    if (difference > largest) largest = difference;
    a.data[i] = difference * state.gain; // clamped by the array
  }
  canvas.width = a.width;
  canvas.height = a.height;
  canvas.getContext("2d").putImageData(a, 0, 0);
  $("#gain output").textContent = `× ${state.gain}, largest ${largest}`;
}

// ---- the table

// The best is marked: sizes where the quality was asked for, else qualities.
const judged = { psnr: ["bytes", "bpp"], quality: [] }[data.kind] || ["psnr_db", "ms_ssim"];
const columns = [
  ["bytes", "bytes", (r) => grouped(r.bytes), -1],
  ["bpp", "bpp", (r) => number(r.bpp, 3), -1],
  ["PSNR dB", "psnr_db", (r) => number(r.psnr_db, 2), 1],
  ["MS-SSIM", "ms_ssim", (r) => number(r.ms_ssim, 4), 1],
  ["encode s", "encode_s", (r) => seconds(r.encode_s), 0],
  ["decode s", "decode_s", (r) => seconds(r.decode_s), 0],
].map(([head, key, text, sign]) => [head, key, text, judged.includes(key) ? sign : 0]);

function fillTable() {
  const { name, width, height, results } = picture();
  const rows = versions().map((result, index) => {
    const radio = (side) => element("td", {}, element("input", {
      type: "radio", name: side, value: index, title: `${side} side`,
      onclick: (event) => { event.stopPropagation(); show({ [side]: index }); },
    }));
    const row = element("tr", {
      title: result.settings || "", onclick: () => show({ right: index }),
    }, radio("left"), radio("right"), nameCell(result, index),
      ...cells(columns, result, results));
    row.append(element("td", { className: "note" }, result.note || ""));
    return row;
  });
  const caption = element("caption", {}, element("b", {}, name), ` ${width} × ${height}`);
  const first = ["left", "right"].map((side) => element("th", {}, side));
  $("#codecs").replaceChildren(caption, heads(columns, ...first, nameHead()),
    element("tbody", {}, ...rows));
}

// ---- the one way to change what is shown

function show(change) {
  const other = change.picture !== undefined && change.picture !== state.picture;
  Object.assign(state, change);
  const all = versions();
  state.left = Math.min(state.left, all.length - 1);
  state.right = Math.min(state.right, all.length - 1);
  if (other) fillTable();
  for (const side of ["left", "right"]) {
    const image = sides[side].firstElementChild, { src, codec } = all[state[side]];
    if (image.src !== src) Object.assign(image, { src, alt: `${picture().name}, ${codec}` });
    $(`input[name="${side}"][value="${state[side]}"]`).checked = true;
    tag(side);
  }
  document.querySelectorAll("#codecs tbody tr").forEach((row, index) =>
    row.classList.toggle("shown", index === state.left || index === state.right));
  press("#items button", (_, index) => index === state.picture);
  const difference = state.view === "difference";
  press("[data-view]", (button) => button.dataset.view === state.view);
  canvas.hidden = !difference;
  slider.hidden = sides.left.hidden = sides.right.hidden = difference;
  $("#gain").hidden = !difference;
  if (difference) drawDifference();
  if (other) fit();
}

const keys = {
  ArrowUp: (shift) => flip(-1, shift),
  ArrowDown: (shift) => flip(1, shift),
  ArrowLeft: () => moveBorder(state.border - 0.02),
  ArrowRight: () => moveBorder(state.border + 0.02),
  " ": () => moveBorder(state.border < 0.5 ? 1 : 0),
  x: () => show({ left: state.right, right: state.left }),
  d: () => show({ view: state.view === "difference" ? "slider" : "difference" }),
  s: () => show({ view: "slider" }),
  "+": zooms.in, "=": zooms.in, "-": zooms.out, f: zooms.fit, z: zooms.one,
  n: () => show({ picture: step(state.picture, 1, data.pictures.length) }),
  p: () => show({ picture: step(state.picture, -1, data.pictures.length) }),
  t: () => changeTheme(),
  h: () => { $("#figures").hidden = !$("#figures").hidden; },
};

function flip(by, shift) {
  const side = shift ? "left" : "right";
  show({ [side]: step(state[side], by, versions().length) });
}

listen(() => keys, (digit, shift) => {
  if (digit < versions().length) show({ [shift ? "left" : "right"]: digit });
  return digit < versions().length;
});

$("#asked").textContent = `at ${data.asked}`;
$("#search").hidden = data.kind === "quality";
$("#gain input").oninput = (event) => show({ gain: 2 ** event.target.value });
for (const button of document.querySelectorAll("[data-view]")) {
  button.onclick = () => show({ view: button.dataset.view });
}
for (const button of document.querySelectorAll("[data-zoom]")) {
  button.onclick = () => zooms[button.dataset.zoom]();
}
fillItems(data.pictures, (one) => element("img", { src: one.thumbnail, alt: one.name }),
  (index) => show({ picture: index }));
fillTable();
fillMeans(columns, data.pictures, "pictures");
show({});
moveBorder(0.5);
fit();
new ResizeObserver(() => (state.fitted ? fit() : place())).observe(stage);
