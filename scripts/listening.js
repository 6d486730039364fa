// Sounds: the original and what codecs made of it as lanes over one axis of time.

const lanes = $("#lanes");
// What is shown and heard: `from` to `to` are the seconds in view, `last` the codec that a second
// Space goes back to.
const state = { item: 0, version: 0, last: 1, view: "spectrogram", from: 0, to: 1 };
const player = new Player(() => show({}));
let shown = []; // of each version the parts of its lane and what was measured for them

const sound = () => data.sounds[state.item];

/** Original and results of the sound, in the order of the lanes. */
function versions() {
  const { bytes, kbps, original, results } = sound();
  return [{ codec: "original", src: original, bytes, kbps }, ...results];
}

// ---- the lanes

const rateOf = ({ kbps }) => number(kbps, kbps < 100 ? 2 : 0);

function figures({ bytes, kbps }) {
  return `${rateOf({ kbps })} kbps · ${grouped(bytes)} bytes`;
}

function quality(result) {
  return columns.filter(([, key, , , brief]) => brief && (result[key] ?? null) !== null)
    .map(([head, , text]) => `${head} ${text(result)}`).join(" · ");
}

function lane(version, index) {
  const label = element("button", {
    type: "button", className: "label", title: version.settings || "",
    onclick: () => hear(index),
  }, element("span", {}, element("kbd", {}, index < 10 ? `${index}` : " "),
    element("b", {}, version.codec)), element("small", {}, figures(version)));
  for (const [text, name] of [[quality(version), ""], [version.note, "note"]]) {
    if (text) label.append(element("small", { className: name }, text));
  }
  const wave = element("canvas", { className: "wave" });
  const spectrum = element("canvas", { className: "spectrum" });
  const plots = element("div", { className: "plots" }, wave, spectrum, ...hertz());
  plots.onpointerdown = (event) => startDrag(event, index);
  const whole = element("article", { className: "lane" }, label, plots);
  return { whole, plots, wave, spectrum };
}

/** The names of some frequencies, at their heights. */
function hertz() {
  const { rate } = sound();
  return [200, 1000, 4000, 16000].filter((hz) => hz < rate * 0.45).map((hz) => {
    const label = element("span", { className: "hertz" }, hz < 1000 ? `${hz} Hz` : `${hz / 1000} k`);
    label.style.bottom = `calc(var(--spectrum) * ${heightOf(hz, rate)})`;
    return label;
  });
}

function fillLanes() {
  shown = versions().map(lane);
  const marks = [element("i", { id: "stretch" }), element("i", { id: "cursor" })];
  lanes.replaceChildren(element("div", { className: "ruler" }), ...shown.map(({ whole }) => whole),
    element("div", { className: "time" }, ...marks));
  lanes.style.setProperty("--spectrum", `${shown[0].spectrum.clientHeight}px`);
}

function drawRuler() {
  const span = state.to - state.from;
  const least = (span * 80) / Math.max(80, shown[0].plots.clientWidth);
  const every = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20].find((s) => s >= least) ?? 60;
  const ticks = [];
  for (let k = Math.ceil(state.from / every); k * every < state.to; k += 1) {
    const tick = element("span", {}, `${(k * every).toFixed(every < 0.1 ? 2 : every < 1 ? 1 : 0)} s`);
    tick.style.left = `${((k * every - state.from) / span) * 100}%`;
    ticks.push(tick);
  }
  $(".ruler").replaceChildren(...ticks);
}

// ---- what is drawn in them

const isDark = () => {
  const chosen = document.documentElement.style.colorScheme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};
const isDrawable = () => player.versions.length > 0 && shown[0].plots.clientWidth > 0;

/** Measure what is in view and draw it, lane by lane; a later call ends an earlier one. */
async function draw() {
  if (!isDrawable()) return;
  drawRuler();
  drawLegend();
  const { from, to } = state;
  const columns = Math.round(clamp(shown[0].plots.clientWidth, 60, 2400));
  const wanted = [state.item, from, to, columns].join();
  lanes.dataset.shows = wanted;
  lanes.dataset.drawn = "";
  for (const one of shown) one.whole.classList.toggle("late", one.measured !== wanted);
  for (const [index, one] of shown.entries()) {
    if (one.measured !== wanted) {
      const channels = channelsOf(player.versions[index]);
      one.levels = sound().mel.decibels(channels, player.rate, from, to, columns);
      one.wave.values = extremes(channels, player.rate, from, to, columns);
      one.measured = wanted;
    }
    drawLane(one, index);
    one.whole.classList.remove("late");
    await new Promise((done) => { setTimeout(done); });
    if (lanes.dataset.shows !== wanted) return;
  }
  lanes.dataset.drawn = wanted;
}

const channelsOf = (buffer) =>
  Array.from({ length: buffer.numberOfChannels }, (_, c) => buffer.getChannelData(c));

function drawLane({ wave, spectrum, levels }, index) {
  const { top, loudest } = sound(), scale = SCALES[isDark() ? "dark" : "light"];
  const ink = getComputedStyle(document.body).color;
  drawWave(wave, wave.values, loudest, ink);
  if (state.view === "difference" && index > 0) {
    // What lies below the scale of the spectrograms is silence in both.
    const heard = (level) => Math.max(level, top - RANGE_DB);
    const more = levels.map((level, i) => heard(level) - heard(shown[0].levels[i]));
    drawBands(spectrum, more, -DIFFERENCE_DB, DIFFERENCE_DB, ramp(scale.difference));
  } else {
    drawBands(spectrum, levels, top - RANGE_DB, top, ramp(scale.spectrogram));
  }
}

function drawLegend() {
  const [low, bar, high] = $("#legend").children;
  const differs = state.view === "difference";
  low.textContent = differs ? `${-DIFFERENCE_DB} dB, lost` : `${-RANGE_DB} dB`;
  high.textContent = differs ? `+${DIFFERENCE_DB} dB, added` : "0 dB";
  const colours = SCALES[isDark() ? "dark" : "light"][state.view];
  bar.style.background = `linear-gradient(90deg, ${colours.join()})`;
}

/** What the scales of a sound's lanes are, from its original. */
function measureScale(buffer) {
  const one = sound(), channels = channelsOf(buffer);
  one.mel = new MelSpectrum(one.rate);
  one.top = one.mel.decibels(channels, one.rate, 0, player.duration, 400)
    .reduce((most, level) => Math.max(most, level), -60);
  one.loudest = extremes(channels, one.rate, 0, player.duration, 400)
    .reduce((most, sample) => Math.max(most, Math.abs(sample)), 1e-3) * 1.05;
}

// ---- time: the playhead, the stretch that is repeated, zoom

function percent(time) {
  return ((time - state.from) / (state.to - state.from)) * 100;
}

function tick() {
  const { time } = player;
  if (player.playing && (time < state.from || time > state.to)) view(time, time + state.to - state.from);
  $("#cursor").style.transform = `translateX(${percent(time)}%)`;
  const [now, length] = $("#clock").children;
  now.textContent = `${time.toFixed(2)} s`;
  length.textContent = `of ${player.duration.toFixed(2)} s`;
  if (player.playing) requestAnimationFrame(tick);
}

/** Show the seconds `from` to `to`, moved into the sound. */
function view(from, to) {
  const span = clamp(to - from, Math.min(0.02, player.duration), player.duration) || 1;
  state.from = clamp(from, 0, Math.max(0, player.duration - span));
  state.to = state.from + span;
  show({});
  draw();
}

/** Zoom by a factor so that a second stays where it is. */
function zoomBy(factor, around = clamp(player.time, state.from, state.to)) {
  view(around - (around - state.from) * factor, around + (state.to - around) * factor);
}

const zooms = {
  in: () => zoomBy(0.5),
  out: () => zoomBy(2),
  fit: () => view(0, player.duration),
};

const all = () => [0, player.duration];

function repeat(stretch) {
  player.repeat(stretch);
  show({});
}

function timeAt(event) {
  const { left, width } = shown[0].plots.getBoundingClientRect();
  return clamp(state.from + ((event.clientX - left) / width) * (state.to - state.from),
    0, player.duration);
}

/** A click plays a lane from there; a drag is a stretch to repeat. */
function startDrag(event, index) {
  if (event.button !== 0) return;
  const start = timeAt(event), { clientX } = event;
  const plots = event.currentTarget;
  plots.setPointerCapture(event.pointerId);
  let stretch = null;
  plots.onpointermove = (move) => {
    if (!stretch && Math.abs(move.clientX - clientX) < 5) return;
    const end = timeAt(move);
    stretch = [Math.min(start, end), Math.max(start, end)];
    showStretch(stretch);
  };
  plots.onpointercancel = () => { plots.onpointermove = plots.onpointerup = null; show({}); };
  plots.onpointerup = () => {
    plots.onpointermove = plots.onpointerup = null;
    if (stretch && stretch[1] - stretch[0] > 0.02) {
      player.repeat(stretch);
      player.seek(stretch[0]);
    } else {
      const { loop } = player;
      if (loop && (start < loop[0] || start > loop[1])) player.repeat(all());
      player.seek(start);
    }
    hear(index);
  };
}

lanes.addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  zoomBy(2 ** (clamp(event.deltaY, -200, 200) / 150), timeAt(event));
}, { passive: false });

function showStretch(stretch) {
  const { style } = $("#stretch"), [from, to] = stretch || all();
  style.display = to - from < player.duration ? "block" : "none";
  style.left = `${percent(from)}%`;
  style.width = `${percent(to) - percent(from)}%`;
}

// ---- the table

const columns = [
  ["bytes", "bytes", (r) => grouped(r.bytes), 0],
  ["kbps", "kbps", rateOf, 0],
  ...data.metrics.map(([head, key, digits, sign, brief]) =>
    [head, key, (r) => number(r[key], digits), sign, brief]),
  ["encode s", "encode_s", (r) => seconds(r.encode_s), 0],
  ["decode s", "decode_s", (r) => seconds(r.decode_s), 0],
];

function fillTable() {
  const { name, about, results } = sound();
  const rows = versions().map((result, index) => element("tr", {
    title: result.settings || "", onclick: () => hear(index),
  }, nameCell(result, index), ...cells(columns, result, results),
    element("td", { className: "note" }, result.note || "")));
  $("#codecs").replaceChildren(element("caption", {}, element("b", {}, name), ` ${about}`),
    heads(columns, nameHead()), element("tbody", {}, ...rows));
}

// ---- the one way to change what is shown and heard

function show(change) {
  Object.assign(state, change);
  if (player.chosen !== audible()) player.choose(audible());
  if (state.version > 0) state.last = state.version;
  const { codec, ...rest } = versions()[state.version];
  const [name, about] = $("#heard").children;
  name.textContent = blind.on ? "blind test" : codec;
  about.textContent = blind.on ? "" : player.context === null
    ? "Keys 1 to 9 switch while it plays, Space is the original."
    : [figures(rest), quality(rest)].filter(Boolean).join(" · ");
  shown.forEach(({ whole }, index) => whole.classList.toggle("heard", index === state.version));
  document.querySelectorAll("#codecs tbody tr").forEach((row, index) =>
    row.classList.toggle("shown", !blind.on && index === state.version));
  press("#items button", (_, index) => index === state.item);
  press("[data-view]", (button) => button.dataset.view === state.view);
  press("#loop", () => player.loop !== null);
  press("#blind", () => blind.on);
  $("#play").classList.toggle("playing", player.playing);
  $("#play").ariaLabel = player.playing ? "Pause" : "Play";
  lanes.hidden = blind.on;
  $("#test").hidden = !blind.on;
  showStretch(player.loop);
  requestAnimationFrame(tick);
}

const audible = () => (blind.on ? blind.version() : state.version);

/** Hear a version, from the place where the playhead is. */
function hear(version) {
  show({ version });
  shown[version].whole.scrollIntoView({ block: "nearest" });
  if (!player.playing) play();
}

function play() {
  if (player.playing) player.pause();
  else player.play();
  show({});
}

function look(name) {
  show({ view: name });
  draw();
}

async function choose(item) {
  const one = data.sounds[item], files = [one.original, ...one.results.map(({ src }) => src)];
  player.pause();
  Object.assign(state, { item, version: Math.min(state.version, one.results.length) });
  state.last = Math.min(state.last, one.results.length);
  lanes.dataset.drawn = "";
  fillLanes();
  fillTable();
  fillRivals();
  if (!(await player.load(files, one.rate, one.length))) return;
  measureScale(player.versions[0]);
  player.repeat(all());
  view(0, player.duration);
}

const move = (by) => { player.seek(player.time + by); show({}); };
const keys = {
  ArrowUp: () => hear(step(state.version, -1, versions().length)),
  ArrowDown: () => hear(step(state.version, 1, versions().length)),
  ArrowLeft: (shift) => move(shift ? -0.1 : -1),
  ArrowRight: (shift) => move(shift ? 0.1 : 1),
  Home: () => move(-player.duration),
  Enter: play,
  " ": () => hear(state.version === 0 ? Math.min(state.last, versions().length - 1) : 0),
  l: () => repeat(player.loop ? null : all()),
  Escape: () => repeat(all()),
  d: () => look(state.view === "difference" ? "spectrogram" : "difference"),
  s: () => look("spectrogram"),
  "+": zooms.in, "=": zooms.in, "-": zooms.out, f: zooms.fit,
  z: () => view(...(player.loop || all())),
  n: () => choose(step(state.item, 1, data.sounds.length)),
  p: () => choose(step(state.item, -1, data.sounds.length)),
  b: () => blind.start(),
  t: () => { changeTheme(); draw(); },
  h: () => { $("#figures").hidden = !$("#figures").hidden; },
};

// ---- the start

// Of these a blind test gives nothing away.
const { Enter, ArrowLeft, ArrowRight, Home, t } = keys;
const inTest = { Enter, ArrowLeft, ArrowRight, Home, t, ...blindKeys };
listen(() => (blind.on ? inTest : keys), (digit) => {
  if (blind.on || digit >= versions().length) return false;
  hear(digit);
  return true;
});
$("#asked").textContent = data.asked;
$("#play").onclick = play;
$("#loop").onclick = keys.l;
$("#theme").onclick = keys.t;
for (const button of document.querySelectorAll("[data-view]")) {
  button.onclick = () => look(button.dataset.view);
}
for (const button of document.querySelectorAll("[data-zoom]")) {
  button.onclick = zooms[button.dataset.zoom];
}
fillItems(data.sounds, (one) => one.name, choose);
fillMeans(columns, data.sounds, "sounds");
new ResizeObserver(() => {
  lanes.style.setProperty("--spectrum", `${shown[0].spectrum.clientHeight}px`);
  draw();
}).observe(lanes);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
choose(0);
