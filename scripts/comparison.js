// Pictures: original and results on a stage, with a slider between any two of them.

const subject = () => data.pictures[state.item];

/** Original and results of the picture, in the order of the table. */
function versions() {
  const { bytes, width, height, original, results } = subject();
  const name = { codec: "original", src: original, bytes, bpp: (8 * bytes) / width / height };
  return [name, ...results];
}

function figures({ bpp, psnr_db }) {
  const rate = `${number(bpp, 3)} bpp`;
  return psnr_db === undefined ? [rate] : [rate, `${number(psnr_db, 2)} dB`];
}

// ---- what is on the stage

async function samples(src) {
  const image = new Image();
  image.src = src;
  await image.decode();
  const { width, height } = subject();
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.fillStyle = "#808080"; // under what is transparent
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, width, height);
}

/** Draw the amplified absolute difference of the two sides. */
async function drawDifference() {
  const wanted = [state.item, state.left, state.right, state.gain].join();
  const canvas = $("#difference");
  if (canvas.dataset.shows === wanted) return;
  canvas.dataset.shows = wanted;
  const all = versions();
  const [a, b] = await Promise.all([samples(all[state.left].src), samples(all[state.right].src)]);
  if (canvas.dataset.shows === wanted) amplify(a, b); // else something else was asked for meanwhile
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

// ---- the one way to change what is shown

function show(change) {
  const other = take(change, columns), all = versions();
  for (const side of ["left", "right"]) {
    const image = sides[side].firstElementChild, { src, codec } = all[state[side]];
    if (image.src !== src) Object.assign(image, { src, alt: `${subject().name}, ${codec}` });
  }
  if (state.view === "difference") drawDifference();
  if (other) fit();
}

const keys = {
  ...stageKeys,
  ArrowLeft: () => moveBorder(state.border - 0.02),
  ArrowRight: () => moveBorder(state.border + 0.02),
  " ": () => moveBorder(state.border < 0.5 ? 1 : 0),
  n: () => show({ item: step(state.item, 1, data.pictures.length) }),
  p: () => show({ item: step(state.item, -1, data.pictures.length) }),
};

listen(() => keys, choose);
$("#asked").textContent = `at ${data.asked}`;
$("#search").hidden = data.kind === "quality";
fillItems(data.pictures, (one) => element("img", { src: one.thumbnail, alt: one.name }),
  (index) => show({ item: index }));
fillTable(columns);
fillMeans(columns, data.pictures, "pictures");
show({});
moveBorder(0.5);
fit();
