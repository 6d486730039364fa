// Clips: original and results play as parts of one video, so that they can't get out of step. Each
// frame is drawn from there on both sides of the stage.

const video = $("video"), curve = $("#curve");
const subject = () => data.clips[state.item];
let frame = 0; // number of the one that is shown

/** Original and results of the clip, in the order of the table. */
function versions() {
  const { bytes, kbps, results } = subject();
  return [{ codec: "original", bytes, kbps }, ...results];
}

function figures({ kbps, psnr_yuv, yuv_by_frame }) {
  const rate = `${number(kbps, kbps < 100 ? 1 : 0)} kbps`;
  if (psnr_yuv === undefined) return [rate];
  return [rate, `${number(psnr_yuv, 2)} dB`, `this frame ${number(yuv_by_frame[frame], 2)} dB`];
}

// ---- the video

/** When a frame begins, in seconds; of the one behind the last, when the clip ends. */
const startOf = (index) => subject().times[index];
const frames = () => subject().times.length - 1;

/** The frame whose time is nearest. */
function frameAt(time) {
  let low = 0, high = frames() - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((startOf(middle) + startOf(middle + 1)) / 2 < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

function load() {
  const text = atob(subject().video);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  if (video.src) URL.revokeObjectURL(video.src);
  $("#waiting").hidden = false;
  video.src = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
  video.playbackRate = video.defaultPlaybackRate = Number($("#speed").value);
  frame = 0;
}

video.onerror = () => {
  $("#waiting").textContent = "this browser does not play H.264";
};

function seek(index) {
  frame = clamp(index, 0, frames() - 1);
  video.currentTime = (startOf(frame) + startOf(frame + 1)) / 2; // not on the border of two frames
}

function stepBy(by) {
  video.pause();
  seek(step(frame, by, frames()));
}

function toggle() {
  if (video.paused) video.play();
  else video.pause();
}

/** Called by the browser for every frame that it has decoded and shows. */
function onFrame(_, { mediaTime }) {
  frame = frameAt(mediaTime + 1e-4);
  draw();
  video.requestVideoFrameCallback(onFrame);
}

// ---- what is on the stage

/** Where a version lies in the video: left, top, width, height. */
function tile(index) {
  const { width, height, columns, tile_width, tile_height } = subject();
  return [(index % columns) * tile_width, Math.floor(index / columns) * tile_height, width, height];
}

function drawSide(side) {
  const { width, height } = subject();
  const canvas = sides[side].firstElementChild;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.getContext("2d").drawImage(video, ...tile(state[side]), 0, 0, width, height);
}

function samples(index) {
  const { width, height } = subject();
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(video, ...tile(index), 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

function draw() {
  if (video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA) {
    $("#waiting").hidden = true;
    if (state.view === "difference") amplify(samples(state.left), samples(state.right));
    else ["left", "right"].forEach(drawSide);
  }
  ["left", "right"].forEach(tag);
  const { times } = subject();
  $("#clock b").textContent = `frame ${frame + 1} of ${frames()}`;
  $("#clock span").textContent = `${times[frame].toFixed(3)} of ${times[frames()].toFixed(2)} s`;
  drawCurve();
}

// ---- the quality of each frame

const MARGIN = 48; // for the numbers

/** Where a frame and a quality are on the curve. */
function scales(width, height) {
  const all = subject().results.flatMap((result) => result.yuv_by_frame);
  const shown = all.filter((value) => value < 100);
  const low = Math.min(...shown, 100), high = Math.max(...shown, low + 1);
  return {
    low, high,
    x: (index) => MARGIN + ((width - MARGIN - 6) * index) / Math.max(1, frames() - 1),
    y: (value) => 5 + ((height - 10) * (high - Math.min(value, high))) / (high - low),
  };
}

function drawCurve() {
  const { clientWidth, clientHeight } = curve, ratio = density();
  const [width, height] = [clientWidth, clientHeight].map((side) => Math.round(side * ratio));
  if (curve.width !== width || curve.height !== height) Object.assign(curve, { width, height });
  const context = curve.getContext("2d"), css = getComputedStyle(document.body);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, clientWidth, clientHeight);
  const { x, y, low, high } = scales(clientWidth, clientHeight);
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const line = (values, name, thick) => {
    context.beginPath();
    values.forEach((value, index) => context.lineTo(x(index), y(value)));
    Object.assign(context, { strokeStyle: colour(name), lineWidth: thick });
    context.stroke();
  };
  Object.assign(context, { fillStyle: colour("faint"), font: `10px ${css.fontFamily}` });
  context.fillText(`${high.toFixed(1)}`, 2, 11);
  context.fillText(`${low.toFixed(1)} dB`, 2, clientHeight - 2);
  const all = versions();
  for (const { yuv_by_frame } of subject().results) line(yuv_by_frame, "faint", 0.7);
  for (const side of ["left", "right"]) {
    const { yuv_by_frame } = all[state[side]];
    if (yuv_by_frame) line(yuv_by_frame, side, 2);
  }
  context.fillStyle = colour("ink");
  context.fillRect(x(frame) - 0.5, 0, 1, clientHeight);
}

const probe = element("i");
document.body.append(probe);

function seekAt(event) {
  const { left, width } = curve.getBoundingClientRect();
  const share = (event.clientX - left - MARGIN) / (width - MARGIN - 6);
  seek(Math.round(share * (frames() - 1)));
}

curve.onpointerdown = (event) => {
  curve.setPointerCapture(event.pointerId);
  seekAt(event);
};
curve.onpointermove = (event) => {
  if (curve.hasPointerCapture(event.pointerId)) seekAt(event);
};

// ---- the table

// The best is marked: sizes where the quality was asked for, else qualities.
const judged = { psnr: ["bytes", "kbps"], quality: [] }[data.kind]
  || ["psnr_yuv", "psnr_rgb", "ms_ssim"];
const columns = [
  ["bytes", "bytes", (r) => grouped(r.bytes), -1],
  ["kbps", "kbps", (r) => number(r.kbps, 1), -1],
  ["bpp", "bpp", (r) => number(r.bpp, 4), 0],
  ["PSNR dB", "psnr_yuv", (r) => number(r.psnr_yuv, 2), 1],
  ["worst", "psnr_min", (r) => number(r.psnr_min, 2), 0],
  ["RGB dB", "psnr_rgb", (r) => number(r.psnr_rgb, 2), 1],
  ["MS-SSIM", "ms_ssim", (r) => number(r.ms_ssim, 4), 1],
  ["encode fps", "encode_fps", (r) => number(r.encode_fps, 1), 0],
  ["decode fps", "decode_fps", (r) => number(r.decode_fps, 1), 0],
].map(([head, key, text, sign]) => [head, key, text, judged.includes(key) ? sign : 0]);

// ---- the one way to change what is shown

function show(change) {
  const other = take(change, columns);
  stage.classList.toggle("apart", state.view === "apart");
  if (other) load();
  if (other || change.view) fit();
  $("#carried").textContent = `the original in it has ${number(subject().carried_db, 1)} dB.`;
  draw();
}

const keys = {
  ...stageKeys,
  " ": toggle,
  ArrowLeft: (shift) => stepBy(shift ? -10 : -1),
  ArrowRight: (shift) => stepBy(shift ? 10 : 1),
  Home: () => seek(0),
  a: () => show({ view: state.view === "apart" ? "slider" : "apart" }),
  n: () => show({ item: step(state.item, 1, data.clips.length) }),
  p: () => show({ item: step(state.item, -1, data.clips.length) }),
};

listen(() => keys, choose);
$("#play").onclick = toggle;
$("#back").onclick = () => stepBy(-1);
$("#on").onclick = () => stepBy(1);
$("#speed").onchange = (event) => { video.playbackRate = Number(event.target.value); };
// The first frame, and that of a seek, may be there after their callback.
for (const kind of ["loadeddata", "seeked"]) video.addEventListener(kind, draw);
for (const kind of ["play", "pause"]) {
  video.addEventListener(kind, () => $("#play").classList.toggle("playing", !video.paused));
}
$("#asked").textContent = `at ${data.asked}`;
$("#search").hidden = data.kind === "quality";
fillItems(data.clips, (one) => element("img", { src: one.thumbnail, alt: one.name }),
  (index) => show({ item: index }));
fillTable(columns);
fillMeans(columns, data.clips, "clips");
load();
show({});
moveBorder(0.5);
fit();
video.requestVideoFrameCallback(onFrame);
new ResizeObserver(drawCurve).observe(curve);
