// Versions of one sound that all run at once, of which one is let through: changing it keeps the
// place to the sample.

const FADE_S = 0.008; // long enough to hide that the wave jumps, too short to be noticed

class Player {
  /** `changed` is called when it starts or stops by itself. */
  constructor(changed) {
    Object.assign(this, { changed, versions: [], rate: 0, duration: 0, chosen: 0 });
    Object.assign(this, { context: null, sources: null, gains: [], place: 0, loop: null });
  }

  /** Take other versions: FLAC files in base64, all of `length` samples at `rate` Hz. */
  async load(files, rate, length) {
    this.pause();
    const loading = Promise.all(files.map((text) => decodeSound(text, rate)));
    this.loading = loading;
    const versions = await loading;
    if (this.loading !== loading) return false; // another sound was asked for meanwhile
    const other = this.context && this.rate !== rate;
    if (other) this.context.close();
    if (other) this.context = null;
    Object.assign(this, { versions, rate, duration: length / rate, place: 0, loop: null });
    return true;
  }

  get playing() {
    return this.sources !== null;
  }

  /** Seconds from the start of the sound. */
  get time() {
    if (!this.playing) return this.place;
    const passed = this.place + Math.max(0, this.context.currentTime - this.started);
    const [from, to] = this.loop || [0, this.duration];
    return this.loop && passed > to ? from + ((passed - from) % (to - from))
      : Math.min(passed, this.duration);
  }

  play(from = this.time) {
    this.pause();
    if (this.versions.length === 0 || this.duration === 0) return;
    this.context ??= openContext(this.rate);
    this.context.resume();
    const [start, end] = this.loop || [0, this.duration];
    this.place = from >= start && from < end - 1e-3 ? from : start;
    this.started = this.context.currentTime + 0.02; // all of them at once
    this.gains = this.versions.map((_, index) => {
      const gain = this.context.createGain();
      gain.gain.value = 0;
      if (index === this.chosen) {
        gain.gain.setValueAtTime(0, this.started);
        gain.gain.linearRampToValueAtTime(1, this.started + FADE_S);
      }
      gain.connect(this.context.destination);
      return gain;
    });
    this.sources = this.versions.map((buffer, index) => {
      const source = this.context.createBufferSource();
      const looped = this.loop ? { loop: true, loopStart: start, loopEnd: end } : {};
      Object.assign(source, { buffer, ...looped });
      source.connect(this.gains[index]);
      source.start(this.started, this.place);
      return source;
    });
    const [first] = this.sources;
    first.onended = () => {
      if (this.sources?.[0] !== first) return;
      this.pause();
      this.place = 0;
      this.changed();
    };
  }

  pause() {
    if (!this.playing) return;
    this.place = this.time;
    const now = this.context.currentTime;
    for (const { gain } of this.gains) fade(gain, 0, now);
    for (const source of this.sources) source.stop(now + FADE_S);
    this.sources = null;
  }

  seek(to) {
    const place = clamp(to, 0, this.duration);
    if (this.playing) this.play(place);
    else this.place = place;
  }

  /** Hear the version of this number from here on. */
  choose(index) {
    this.chosen = index;
    if (!this.playing) return;
    const now = this.context.currentTime;
    this.gains.forEach(({ gain }, number) => fade(gain, number === index ? 1 : 0, now));
  }

  /** Repeat the stretch [from, to] in seconds, or with null play to the end. */
  repeat(stretch) {
    const { playing, time } = this;
    this.pause();
    this.loop = stretch;
    if (playing) this.play(time);
  }
}

function fade(gain, value, now) {
  const { value: before } = gain;
  gain.cancelScheduledValues(now);
  gain.setValueAtTime(before, now);
  gain.linearRampToValueAtTime(value, now + FADE_S);
}

/** The samples as they are: a context of their own rate resamples nothing. */
async function decodeSound(text, rate) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes.buffer);
}

function openContext(sampleRate) {
  try {
    return new AudioContext({ sampleRate });
  } catch { // a rate that the browser does not play: it resamples the buffers
    return new AudioContext();
  }
}
