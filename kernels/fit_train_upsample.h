// Upsampling, and back. Included once per instruction set, after
// fit_train_vectors.h.

namespace latentpack::fit_train {
namespace {

constexpr size_t kSlack = 2 * W;  // loops over a row go on past its end, up to a whole step

FIT_INLINE size_t clamped(ptrdiff_t i, size_t count) {
  return i < 0 ? 0 : i >= static_cast<ptrdiff_t>(count) ? count - 1 : static_cast<size_t>(i);
}

// The rows that an upsampled row comes from, its first tap's first.
struct Sources {
  size_t row[4];
  FIT_INLINE Sources(size_t r, size_t height) {
    const auto i = static_cast<ptrdiff_t>(r >> 1);
    for (int j = 0; j < 4; ++j) row[j] = clamped(r & 1 ? i + 2 - j : i - 2 + j, height);
  }
};

// One upsampled row, before its columns are: two replicated values at either end.
FIT_INLINE void blend_rows(const float* in, size_t width, const Sources& from, const float* taps,
                           float* t) {
  for (size_t x = 0; x < width; x += W) {
    V sum{};
    for (int j = 0; j < 4; ++j) sum = fma(all(taps[j]), load(in + from.row[j] * width + x), sum);
    store(t + 2 + x, sum);
  }
  t[0] = t[1] = t[2];
  t[width + 2] = t[width + 3] = t[width + 1];
}

FIT_TARGET void upsample_channel(const float* in, size_t height, size_t width, const float* taps,
                                 size_t out_height, size_t out_width, float* scratch, float* out) {
  float* t = scratch;
  float* even = t + width + 4 + kSlack;
  float* odd = even + width + kSlack;
  const V w0 = all(taps[0]), w1 = all(taps[1]), w2 = all(taps[2]), w3 = all(taps[3]);
  for (size_t r = 0; r < out_height; ++r, out += out_width) {
    blend_rows(in, width, Sources(r, height), taps, t);
    for (size_t x = 0; x < width; x += W) {
      const V t0 = load(t + x), t1 = load(t + x + 1), t2 = load(t + x + 2), t3 = load(t + x + 3),
              t4 = load(t + x + 4);
      store(even + x, fma(w0, t0, fma(w1, t1, fma(w2, t2, w3 * t3))));
      store(odd + x, fma(w0, t4, fma(w1, t3, fma(w2, t2, w3 * t1))));
    }
    for (size_t x = 0; x < out_width / 2; ++x) {
      out[2 * x] = even[x];
      out[2 * x + 1] = odd[x];
    }
    if (out_width & 1) out[out_width - 1] = even[out_width / 2];
  }
}

// Plane c of the prediction at full size.
FIT_TARGET void take_prediction(const Work& work, int c, float* out) {
  const size_t columns = work.plane_columns(c);
  const float unit = work.objective.prediction_unit;
  for (size_t r = 0; r < work.height; ++r, out += work.width) {
    const size_t row = columns < work.width ? r / 2 : r;
    const int16_t* in = work.frame.prediction + work.plane_start(c) + row * columns;
    if (columns == work.width)
      for (size_t x = 0; x < columns; ++x) out[x] = unit * in[x];
    else
      for (size_t x = 0; x < columns; ++x) out[2 * x] = out[2 * x + 1] = unit * in[x];
  }
}

// The stack of a level from that of the next coarser one, and the level's own latents.
FIT_TARGET void upsample(Work& work, int thread, int level) {
  const Grid& grid = work.grids[level];
  const auto k = static_cast<size_t>(level);
  const size_t channels = work.channels(level);
  const size_t extra = static_cast<size_t>(level ? 0 : work.net.extra);
  const Range mine = range_of(channels + extra, thread, work.threads);
  float* scratch = work.shares[static_cast<size_t>(thread)].scratch.data();
  for (size_t channel = mine.first; channel < mine.last; ++channel) {
    float* out = work.stacks[k].data() + channel * work.planes[k];
    if (channel >= channels) {
      take_prediction(work, static_cast<int>(channel - channels), out);
    } else if (channel + 1 + k == kGrids) {
      for (size_t r = 0; r < grid.height; ++r)
        std::memcpy(out + r * grid.width,
                    work.values.data() + grid.at(static_cast<ptrdiff_t>(r), 0),
                    grid.width * sizeof(float));
    } else {
      const Grid& coarse = work.grids[k + 1];
      upsample_channel(work.stacks[k + 1].data() + channel * work.planes[k + 1], coarse.height,
                       coarse.width, work.params + work.at.up + 4 * k, grid.height, grid.width,
                       scratch, out);
    }
  }
}

// Gradients of upsample_channel: `in_grads` is set, `tap_grads` is added to.
FIT_TARGET void upsample_channel_back(const float* in, size_t height, size_t width,
                                      const float* taps, size_t out_height, size_t out_width,
                                      const float* out_grads, float* scratch, float* in_grads,
                                      float* tap_grads) {
  const size_t row = width + 8 + kSlack;
  float* t = scratch;
  float* even = t + row + 4;  // column x; four zeros and more at either end
  float* odd = even + row + kSlack;
  float* g = odd + row + kSlack;  // column x - 2
  std::memset(scratch, 0, 4 * (row + kSlack) * sizeof(float));
  std::memset(in_grads, 0, height * width * sizeof(float));
  const V w0 = all(taps[0]), w1 = all(taps[1]), w2 = all(taps[2]), w3 = all(taps[3]);
  V sums[4] = {};
  for (size_t r = 0; r < out_height; ++r, out_grads += out_width) {
    const Sources from(r, height);
    blend_rows(in, width, from, taps, t);
    for (size_t x = 0; x < out_width / 2; ++x) {
      even[x] = out_grads[2 * x];
      odd[x] = out_grads[2 * x + 1];
    }
    if (out_width & 1) even[out_width / 2] = out_grads[out_width - 1];
    for (size_t x = 0; x < width; x += W) {
      const V e = load(even + x), o = load(odd + x);
      const V t0 = load(t + x), t1 = load(t + x + 1), t2 = load(t + x + 2), t3 = load(t + x + 3),
              t4 = load(t + x + 4);
      sums[0] = fma(e, t0, fma(o, t4, sums[0]));
      sums[1] = fma(e, t1, fma(o, t3, sums[1]));
      sums[2] = fma(e + o, t2, sums[2]);
      sums[3] = fma(e, t3, fma(o, t1, sums[3]));
    }
    for (size_t x = 0; x < width + 4; x += W) {  // g[x] is of column x - 2
      const float *e = even + x - 2, *o = odd + x - 2;
      const V first = load(e + 2) + load(o - 2), second = load(e + 1) + load(o - 1);
      const V third = load(e) + load(o), fourth = load(e - 1) + load(o + 1);
      store(g + x, fma(w0, first, fma(w1, second, fma(w2, third, w3 * fourth))));
    }
    g[2] += g[0] + g[1];
    g[width + 1] += g[width + 2] + g[width + 3];
    g[width + 2] = g[width + 3] = 0;
    for (size_t x = 0; x < width; x += W) {
      const V v = load(g + 2 + x);
      for (int j = 0; j < 4; ++j) {
        float* to = in_grads + from.row[j] * width + x;
        store(to, fma(all(taps[j]), v, load(to)));
        sums[j] = fma(v, load(in + from.row[j] * width + x), sums[j]);
      }
    }
  }
  for (int j = 0; j < 4; ++j) tap_grads[j] += total(sums[j]);
}

FIT_TARGET void upsample_back(Work& work, int thread, int level) {
  const auto k = static_cast<size_t>(level);
  const Grid &grid = work.grids[k], &coarse = work.grids[k + 1];
  const Range mine = range_of(work.channels(level + 1), thread, work.threads);
  Share& share = work.shares[static_cast<size_t>(thread)];
  for (size_t channel = mine.first; channel < mine.last; ++channel)
    upsample_channel_back(work.stacks[k + 1].data() + channel * work.planes[k + 1], coarse.height,
                          coarse.width, work.params + work.at.up + 4 * k, grid.height, grid.width,
                          work.stack_grads[k].data() + channel * work.planes[k],
                          share.scratch.data(),
                          work.stack_grads[k + 1].data() + channel * work.planes[k + 1],
                          share.up.data() + 4 * k);
}

}  // namespace
}  // namespace latentpack::fit_train
