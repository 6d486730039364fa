// A stage with two sides, left and right, on which a page shows two versions of its subject with a
// slider between them; zoom and pan are the same for both. The page's own script has `subject()`,
// the item that is shown with its `width` and `height`, `versions()`, the original and the results
// in the order of the table, `figures(version)` for the tags, and `show(change)`.

const stage = $("#stage"), slider = $("#slider");
const sides = { left: $("#left"), right: $("#right") };
// What is shown: `left` and `right` are numbers of versions; `zoom` is device pixels to a pixel of
// the subject; `x`, `y` is where on a side its corner lies, in CSS pixels; `border` is the place of
// the slider, 0 to 1; `gain` amplifies differences.
const state = {
  item: 0, left: 0, right: 1, view: "slider", border: 0.5, gain: 8,
  zoom: 1, x: 0, y: 0, fitted: true,
};

// ---- zoom and pan, the same for everything on the stage

const density = () => window.devicePixelRatio || 1;

/** CSS pixels that one side has for itself. */
const room = () => ({
  width: stage.clientWidth / (stage.classList.contains("apart") ? 2 : 1),
  height: stage.clientHeight,
});

function place() {
  const scale = state.zoom / density();
  const snap = (value) => Math.round(value * density()) / density();
  const transform = `translate(${snap(state.x)}px, ${snap(state.y)}px) scale(${scale})`;
  for (const shown of document.querySelectorAll(".layer > *, #difference")) {
    shown.style.transform = transform;
    shown.style.backgroundSize = `${20 / scale}px ${20 / scale}px`; // squares of one size
  }
  stage.classList.toggle("pixels", state.zoom >= 1);
  $("#zoom").textContent = `${Math.round(state.zoom * 100)} %`;
}

/** All of the picture: whole multiples of its size where it is smaller than the stage. */
function fit() {
  const { width, height } = subject(), space = room();
  const most = density() * Math.min(space.width / width, space.height / height);
  state.zoom = most >= 1 ? Math.floor(most) : most;
  state.x = (space.width - (width * state.zoom) / density()) / 2;
  state.y = (space.height - (height * state.zoom) / density()) / 2;
  state.fitted = true;
  place();
}

/** Zoom so that the point (x, y) of a side stays where it is. */
function zoomTo(zoom, x = room().width / 2, y = room().height / 2) {
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

/** Where the mouse or a finger is on the side below it. */
function at({ clientX, clientY }) {
  const { left, top } = stage.getBoundingClientRect();
  return [(clientX - left) % room().width, clientY - top];
}

stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const lines = event.deltaMode ? 30 : 1;
  const factor = 2 ** (-clamp(event.deltaY * lines, -200, 200) / (event.ctrlKey ? 100 : 250));
  zoomTo(state.zoom * factor, ...at(event));
}, { passive: false });

stage.addEventListener("dblclick", (event) => {
  if (state.fitted) zoomTo(Math.max(1, state.zoom * 2), ...at(event));
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
  const { left, width } = stage.getBoundingClientRect();
  const other = [...pointers.values()].find((one) => one.pointerId !== event.pointerId);
  if (other) {
    const span = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    zoomTo((state.zoom * span(event)) / Math.max(1, span(before)), ...at(other));
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

function moveBorder(border) {
  state.border = clamp(border, 0, 1);
  const percent = state.border * 100;
  sides.left.style.clipPath = `inset(0 ${100 - percent}% 0 0)`;
  sides.right.style.clipPath = `inset(0 0 0 ${percent}%)`;
  slider.style.left = `${percent}%`;
  slider.setAttribute("aria-valuenow", Math.round(percent));
}

// ---- what all such pages say of versions

function tag(side) {
  const version = versions()[state[side]];
  $(`#${side}-tag`).replaceChildren(element("b", {}, version.codec), " ",
    figures(version).join(" · "));
}

/** The table of the subject's versions, each to be put on a side. */
function fillTable(columns) {
  const { name, width, height, results } = subject();
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

/** Show something else, as far as the table, tags and buttons tell; says if it is another item. */
function take(change, columns) {
  const other = change.item !== undefined && change.item !== state.item;
  Object.assign(state, change);
  const last = versions().length - 1;
  Object.assign(state, { left: Math.min(state.left, last), right: Math.min(state.right, last) });
  if (other) fillTable(columns);
  for (const side of ["left", "right"]) {
    $(`input[name="${side}"][value="${state[side]}"]`).checked = true;
    tag(side);
  }
  document.querySelectorAll("#codecs tbody tr").forEach((row, index) =>
    row.classList.toggle("shown", index === state.left || index === state.right));
  press("#items button", (_, index) => index === state.item);
  press("[data-view]", (button) => button.dataset.view === state.view);
  const difference = state.view === "difference";
  $("#difference").hidden = !difference;
  sides.left.hidden = sides.right.hidden = difference;
  slider.hidden = state.view !== "slider";
  $("#gain").hidden = !difference;
  return other;
}

/** Draw the absolute difference of two versions, ImageData, times the gain. */
function amplify(a, b) {
  let largest = 0;
  for (let i = 0; i < a.data.length; i += 1) {
    if (i % 4 === 3) continue;
    const difference = Math.abs(a.data[i] - b.data[i]);
    if (difference > largest) largest = difference;
    a.data[i] = difference * state.gain; // clamped by the array
  }
  const canvas = $("#difference");
  Object.assign(canvas, { width: a.width, height: a.height });
  canvas.getContext("2d").putImageData(a, 0, 0);
  $("#gain output").textContent = `× ${state.gain}, largest ${largest}`;
}

function flip(by, shift) {
  const side = shift ? "left" : "right";
  show({ [side]: step(state[side], by, versions().length) });
}

/** Show an item's version of a number on the right, or with Shift on the left. */
function choose(digit, shift) {
  if (digit < versions().length) show({ [shift ? "left" : "right"]: digit });
  return digit < versions().length;
}

const stageKeys = {
  ArrowUp: (shift) => flip(-1, shift),
  ArrowDown: (shift) => flip(1, shift),
  x: () => show({ left: state.right, right: state.left }),
  d: () => show({ view: state.view === "difference" ? "slider" : "difference" }),
  s: () => show({ view: "slider" }),
  "+": zooms.in, "=": zooms.in, "-": zooms.out, f: zooms.fit, z: zooms.one,
  t: () => changeTheme(),
  h: () => { $("#figures").hidden = !$("#figures").hidden; },
};

$("#gain input").oninput = (event) => show({ gain: 2 ** event.target.value });
for (const button of document.querySelectorAll("[data-view]")) {
  button.onclick = () => show({ view: button.dataset.view });
}
for (const button of document.querySelectorAll("[data-zoom]")) {
  button.onclick = () => zooms[button.dataset.zoom]();
}
new ResizeObserver(() => (state.fitted ? fit() : place())).observe(stage);
