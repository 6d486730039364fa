// Log-mel spectrograms and waveforms of a stretch of sound, and the colours they are drawn in.

const BANDS = 96, WINDOW_S = 0.032, LOWEST_HZ = 40;
const RANGE_DB = 80; // below the loudest band of the original
const DIFFERENCE_DB = 30; // to each side

const toMel = (hz) => 2595 * Math.log10(1 + hz / 700);
const toHz = (mel) => 700 * (10 ** (mel / 2595) - 1);

/** A place on the axis of frequencies, 0 at the bottom and 1 at the top. */
const heightOf = (hz, rate) =>
  (toMel(hz) - toMel(LOWEST_HZ)) / (toMel(rate / 2) - toMel(LOWEST_HZ));

/** In-place FFT of `size` complex numbers, a power of two: decimation in time. */
class Fourier {
  constructor(size) {
    this.size = size;
    this.cos = Float64Array.from({ length: size / 2 }, (_, k) => Math.cos((2 * Math.PI * k) / size));
    this.sin = Float64Array.from({ length: size / 2 }, (_, k) => -Math.sin((2 * Math.PI * k) / size));
    const bits = Math.log2(size);
    this.order = Uint32Array.from({ length: size }, (_, k) => {
      let reversed = 0;
      for (let bit = 0; bit < bits; bit += 1) reversed |= ((k >> bit) & 1) << (bits - 1 - bit);
      return reversed;
    });
  }

  run(re, im) {
    const { size, cos, sin, order } = this;
    for (let k = 0; k < size; k += 1) {
      const other = order[k];
      if (other > k) {
        [re[k], re[other]] = [re[other], re[k]];
        [im[k], im[other]] = [im[other], im[k]];
      }
    }
    for (let half = 1; half < size; half *= 2) {
      const stride = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let k = 0; k < half; k += 1) {
          const c = cos[k * stride], s = sin[k * stride], a = start + k, b = a + half;
          const x = re[b] * c - im[b] * s, y = re[b] * s + im[b] * c;
          re[b] = re[a] - x;
          im[b] = im[a] - y;
          re[a] += x;
          im[a] += y;
        }
      }
    }
  }
}

/** Powers of sounds of one sample rate in `BANDS` triangles, evenly spaced in mel. */
class MelSpectrum {
  constructor(rate) {
    this.window = Math.max(16, Math.round(WINDOW_S * rate));
    const size = 2 ** Math.ceil(Math.log2(2 * this.window)); // padded: the lowest bands are narrow
    this.fourier = new Fourier(size);
    this.hann = Float64Array.from({ length: this.window },
      (_, i) => Math.sin((Math.PI * (i + 0.5)) / this.window) ** 2);
    const low = toMel(LOWEST_HZ), width = (toMel(rate / 2) - low) / (BANDS + 1);
    const edges = Array.from({ length: BANDS + 2 }, (_, i) => (toHz(low + i * width) / rate) * size);
    this.bands = Array.from({ length: BANDS }, (_, band) => {
      const [left, middle, right] = edges.slice(band, band + 3);
      const first = Math.ceil(left), weights = [];
      for (let k = first; k < right && k <= size / 2; k += 1) {
        weights.push(k < middle ? (k - left) / (middle - left) : (right - k) / (right - middle));
      }
      return { first, weights };
    });
  }

  /** Add the powers around sample `centre` to `sums`, Float32Array [BANDS]. */
  add(channels, centre, sums) {
    const { fourier, hann, bands, window } = this, { size } = fourier;
    const start = Math.round(centre) - (window >> 1);
    const re = new Float64Array(size), im = new Float64Array(size);
    // Two channels at once: |L|² + |R|² is half of |Z[k]|² + |Z[-k]|² where z = l + i r.
    for (let pair = 0; pair < channels.length; pair += 2) {
      const l = channels[pair], r = channels[pair + 1];
      re.fill(0);
      im.fill(0);
      for (let i = Math.max(0, -start); i < window && start + i < l.length; i += 1) {
        re[i] = l[start + i] * hann[i];
        if (r) im[i] = r[start + i] * hann[i];
      }
      fourier.run(re, im);
      for (let band = 0; band < BANDS; band += 1) {
        const { first, weights } = bands[band];
        let sum = 0;
        for (let i = 0; i < weights.length; i += 1) {
          const k = first + i, mirror = (size - k) & (size - 1);
          sum += weights[i] * (re[k] ** 2 + im[k] ** 2 + re[mirror] ** 2 + im[mirror] ** 2);
        }
        sums[band] += sum / 2 / channels.length;
      }
    }
  }

  /** Decibels of each band in each of `columns` from second `from` to `to`: [columns * BANDS]. */
  decibels(channels, rate, from, to, columns) {
    const hop = ((to - from) * rate) / columns;
    // Of a column, so that nothing is skipped; in minutes a sample of them will do.
    const frames = clamp(Math.ceil(hop / (this.window / 2)), 1, 4);
    const found = new Float32Array(columns * BANDS);
    for (let column = 0; column < columns; column += 1) {
      const sums = found.subarray(column * BANDS, (column + 1) * BANDS);
      for (let frame = 0; frame < frames; frame += 1) {
        this.add(channels, from * rate + hop * (column + (frame + 0.5) / frames), sums);
      }
      for (let band = 0; band < BANDS; band += 1) {
        sums[band] = 10 * Math.log10(sums[band] / frames + 1e-12);
      }
    }
    return found;
  }
}

/** The lowest and highest sample of all channels in each column: [columns * 2]. */
function extremes(channels, rate, from, to, columns) {
  const found = new Float32Array(columns * 2), hop = ((to - from) * rate) / columns;
  for (let column = 0; column < columns; column += 1) {
    const start = Math.floor(from * rate + hop * column);
    const end = Math.max(start + 1, Math.floor(from * rate + hop * (column + 1)));
    let low = Infinity, high = -Infinity;
    for (const samples of channels) {
      for (let i = start; i < end && i < samples.length; i += 1) {
        low = Math.min(low, samples[i]);
        high = Math.max(high, samples[i]);
      }
    }
    if (low <= high) found.set([low, high], column * 2);
  }
  return found;
}

// ---- colours: from little to much, and from less to more than the original

const SCALES = {
  light: {
    spectrogram: ["#fbfbfa", "#e4dcea", "#b9a3d6", "#8a5fb4", "#5b2a86", "#2a0f45"],
    difference: ["#0b4f9e", "#7db3e8", "#f4f4f2", "#f0a06a", "#a83c00"],
  },
  dark: {
    spectrogram: ["#0c0d0e", "#2b1a4a", "#6b2479", "#b8385f", "#f0824a", "#fdf0b0"],
    difference: ["#8cc4ff", "#2a66b0", "#131416", "#b0501c", "#ffb27a"],
  },
};

/** 256 colours through those of a scale: [256 * 3]. */
function ramp(scale) {
  const anchors = scale.map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
  const colours = new Uint8ClampedArray(256 * 3);
  for (let i = 0; i < 256; i += 1) {
    const place = (i / 255) * (anchors.length - 1);
    const below = Math.min(Math.floor(place), anchors.length - 2);
    for (let c = 0; c < 3; c += 1) {
      const [a, b] = [anchors[below][c], anchors[below + 1][c]];
      colours[i * 3 + c] = a + (b - a) * (place - below);
    }
  }
  return colours;
}

/** Draw [columns * BANDS] values, of which `low` has the first colour and `high` the last. */
function drawBands(canvas, values, low, high, colours) {
  const columns = values.length / BANDS;
  canvas.width = columns;
  canvas.height = BANDS;
  const image = new ImageData(columns, BANDS);
  for (let column = 0; column < columns; column += 1) {
    for (let band = 0; band < BANDS; band += 1) {
      const share = (values[column * BANDS + band] - low) / (high - low);
      const colour = 3 * Math.round(255 * clamp(share, 0, 1));
      const pixel = 4 * ((BANDS - 1 - band) * columns + column);
      image.data.set(colours.subarray(colour, colour + 3), pixel);
      image.data[pixel + 3] = 255;
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function drawWave(canvas, values, loudest, colour) {
  const columns = values.length / 2, height = canvas.clientHeight * (window.devicePixelRatio || 1);
  canvas.width = columns;
  canvas.height = Math.max(1, Math.round(height));
  const context = canvas.getContext("2d"), middle = canvas.height / 2;
  const scale = (middle - 1) / loudest;
  context.fillStyle = colour;
  for (let column = 0; column < columns; column += 1) {
    const top = middle - values[column * 2 + 1] * scale;
    const bottom = middle - values[column * 2] * scale;
    context.fillRect(column, top - 0.5, 1, Math.max(1, bottom - top + 1));
  }
}
