// Upsampling and synthesis, and back. Included once per instruction set, after
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

// The stack of a level from that of the next coarser one, and the level's own latents.
FIT_TARGET void upsample(Work& work, int thread, int level) {
  const Grid& grid = work.grids[level];
  const auto k = static_cast<size_t>(level);
  const Range mine = range_of(kGrids - k, thread, work.threads);
  float* scratch = work.shares[static_cast<size_t>(thread)].scratch.data();
  for (size_t channel = mine.first; channel < mine.last; ++channel) {
    float* out = work.stacks[k].data() + channel * work.planes[k];
    if (channel + 1 + k == kGrids) {
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
  const Range mine = range_of(kGrids - 1 - k, thread, work.threads);
  Share& share = work.shares[static_cast<size_t>(thread)];
  for (size_t channel = mine.first; channel < mine.last; ++channel)
    upsample_channel_back(work.stacks[k + 1].data() + channel * work.planes[k + 1], coarse.height,
                          coarse.width, work.params + work.at.up + 4 * k, grid.height, grid.width,
                          work.stack_grads[k].data() + channel * work.planes[k],
                          share.scratch.data(),
                          work.stack_grads[k + 1].data() + channel * work.planes[k + 1],
                          share.up.data() + 4 * k);
}

FIT_INLINE Product synthesis_hidden(const Work& work, const float* u, float* hidden) {
  return {work.panels.sw1.data(), work.net.width, kGrids, u, work.planes[0], hidden, kBlock,
          work.params + work.at.sb1};
}

FIT_TARGET void synthesise(Work& work, int thread) {
  const Net& net = work.net;
  float* hidden = work.shares[static_cast<size_t>(thread)].scratch.data();
  const Range mine = range_of(work.plane / kBlock, thread, work.threads);
  for (size_t block = mine.first; block < mine.last; ++block) {
    const float* u = work.stacks[0].data() + block * kBlock;
    float* a = work.a.data() + block * kBlock;
    multiply<kRelu>(synthesis_hidden(work, u, hidden));
    multiply<kPlain>({work.panels.sskip.data(), net.colours, kGrids, u, work.planes[0], a,
                      work.plane, work.params + work.at.sb2});
    multiply<kPlain>({work.panels.sw2.data(), net.colours, net.width, hidden, kBlock, a, work.plane,
                      nullptr});
  }
}

FIT_TARGET void synthesise_back(Work& work, int thread) {
  const Net& net = work.net;
  Share& share = work.shares[static_cast<size_t>(thread)];
  float* hidden = share.scratch.data();
  float* grads = hidden + net.width * kBlock;
  float* a_grad = grads + net.width * kBlock;
  static const float zeros[kMaxWidth] = {};
  const Range mine = range_of(work.plane / kBlock, thread, work.threads);
  for (size_t block = mine.first; block < mine.last; ++block) {
    const float* u = work.stacks[0].data() + block * kBlock;
    float* u_grad = work.stack_grads[0].data() + block * kBlock;
    for (int c = 0; c < net.colours; ++c)
      std::memcpy(a_grad + c * kBlock,
                  work.x_grad.data() + static_cast<size_t>(c) * work.plane + block * kBlock,
                  kBlock * sizeof(float));
    multiply<kRelu>(synthesis_hidden(work, u, hidden));
    Product back{work.params + work.at.sw2, net.width, net.colours, a_grad, kBlock, grads, kBlock,
                 zeros};
    back.other = hidden;
    multiply<kMask>(back);
    multiply<kPlain>({work.panels.sskip_back.data(), kGrids, net.colours, a_grad, kBlock, u_grad,
                      work.planes[0], zeros});
    multiply<kPlain>({work.panels.sw1_back.data(), kGrids, net.width, grads, kBlock, u_grad,
                      work.planes[0], nullptr});
    add_outer({grads, net.width, u, work.planes[0], kGrids, share.sw1.data()});
    add_outer({a_grad, net.colours, hidden, kBlock, net.width, share.sw2.data()});
    add_outer({a_grad, net.colours, u, work.planes[0], kGrids, share.sskip.data()});
    add_rows(grads, net.width, share.sb1.data());
    add_rows(a_grad, net.colours, share.sb2.data());
  }
}

// Three rows of each colour with `pad` columns at either end: [colours][3] rows of `stride`.
struct Rows {
  float* at;
  size_t stride;
  FIT_INLINE float* row(int colour, int i) const {
    return at + static_cast<size_t>(3 * colour + i) * stride;
  }
};

// Rows r - 1 to r + 1 with replicated edges, one column more at either end.
FIT_INLINE void take_rows(const Work& work, const float* planes, size_t r, const Rows& to) {
  for (int c = 0; c < work.net.colours; ++c)
    for (int i = 0; i < 3; ++i) {
      const size_t from = clamped(static_cast<ptrdiff_t>(r) + i - 1, work.height);
      const float* in = planes + static_cast<size_t>(c) * work.plane + from * work.width;
      float* out = to.row(c, i);
      std::memcpy(out + 1, in, work.width * sizeof(float));
      out[0] = in[0];
      out[work.width + 1] = in[work.width - 1];
    }
}

// Rows r - 1 to r + 1, two columns more at either end, zeros outside.
FIT_INLINE void take_rows_or_zeros(const Work& work, const float* planes, ptrdiff_t r,
                                   const Rows& to) {
  for (int c = 0; c < work.net.colours; ++c)
    for (int i = 0; i < 3; ++i) {
      const ptrdiff_t from = r + i - 1;
      float* out = to.row(c, i) + 2;
      if (from < 0 || from >= static_cast<ptrdiff_t>(work.height))
        std::memset(out, 0, work.width * sizeof(float));
      else
        std::memcpy(out,
                    planes + static_cast<size_t>(c) * work.plane +
                        static_cast<size_t>(from) * work.width,
                    work.width * sizeof(float));
    }
}

// out[o][x] = sum of weights[o][i][j][l] * in[i][j][x + l], for x < count; out's rows are `stride`.
template <int C>
FIT_TARGET void convolve_row(const float* weights, const Rows& in, size_t count, float* out) {
  constexpr int kAtOnce = 2;
  for (size_t x = 0; x < count; x += kAtOnce * W) {
    V sum[C][kAtOnce] = {};
    for (int i = 0; i < C; ++i)
      for (int tap = 0; tap < 9; ++tap) {
        const float* from = in.row(i, tap / 3) + x + tap % 3;
        V v[kAtOnce];
        for (int j = 0; j < kAtOnce; ++j) v[j] = load(from + j * W);
        for (int o = 0; o < C; ++o) {
          const V weight = all(weights[(o * C + i) * 9 + tap]);
          for (int j = 0; j < kAtOnce; ++j) sum[o][j] = fma(weight, v[j], sum[o][j]);
        }
      }
    for (int o = 0; o < C; ++o)
      for (int j = 0; j < kAtOnce; ++j)
        store(out + static_cast<size_t>(o) * in.stride + x + j * W, sum[o][j]);
  }
}

template <int C>
FIT_TARGET void convolve_rows(Work& work, int thread, int layer) {
  Share& share = work.shares[static_cast<size_t>(thread)];
  const size_t width = work.width;
  const Rows rows{share.scratch.data(), width + 4 + kSlack};
  float* out = rows.row(C, 0);
  const float* weights = work.params + (layer == 1 ? work.at.k1 : work.at.k2);
  const float* bias = work.params + (layer == 1 ? work.at.c1 : work.at.c2);
  const float* in = layer == 1 ? work.a.data() : work.b.data();
  const float scale = 2 * work.objective.weight / static_cast<float>(C * work.height * width);
  const Range mine = range_of(work.height, thread, work.threads);
  double squares = 0;
  for (size_t r = mine.first; r < mine.last; ++r) {
    take_rows(work, in, r, rows);
    convolve_row<C>(weights, rows, width, out);
    for (int c = 0; c < C; ++c) {
      const float* sum = out + static_cast<size_t>(c) * rows.stride;
      const float* self = rows.row(c, 1) + 1;
      const size_t at = static_cast<size_t>(c) * work.plane + r * width;
      if (layer == 1) {
        float* b = work.b.data() + at;
        for (size_t x = 0; x < width; ++x) {
          const float v = sum[x] + self[x] + bias[c];
          b[x] = v > 0 ? v : 0;
        }
      } else {
        const float* picture = work.picture + (static_cast<size_t>(c) * work.height + r) * width;
        float* grad = work.x_grad.data() + at;
        float row_squares = 0;
        for (size_t x = 0; x < width; ++x) {
          const float error = sum[x] + self[x] + bias[c] - picture[x];
          grad[x] = scale * error;
        }
        V lanewise{};
        for (size_t x = 0; x + W <= width; x += W) {
          const V g = load(grad + x);
          lanewise = fma(g, g, lanewise);
        }
        for (size_t x = width / W * W; x < width; ++x) row_squares += grad[x] * grad[x];
        squares += static_cast<double>(row_squares + total(lanewise));
      }
    }
  }
  if (scale > 0) share.squares += squares / (static_cast<double>(scale) * static_cast<double>(scale));
}

// The gradient of a convolution's weights, from one row.
template <int C>
FIT_TARGET void weight_grads(const Rows& in, const Rows& grads, size_t width, float* sums) {
  for (int o = 0; o < C; ++o)
    for (int i = 0; i < C; ++i) {
      float* to = sums + (o * C + i) * 9 * W;
      V sum[9];
      for (int tap = 0; tap < 9; ++tap) sum[tap] = load(to + tap * W);
      const float* g = grads.row(o, 1) + 2;
      for (size_t x = 0; x < width; x += W) {
        const V v = load(g + x);
        for (int tap = 0; tap < 9; ++tap)
          sum[tap] = fma(v, load(in.row(i, tap / 3) + x + tap % 3), sum[tap]);
      }
      for (int tap = 0; tap < 9; ++tap) store(to + tap * W, sum[tap]);
    }
}

template <int C>
FIT_TARGET void convolve_rows_back(Work& work, int thread, int layer) {
  Share& share = work.shares[static_cast<size_t>(thread)];
  const size_t width = work.width, height = work.height;
  const Rows rows{share.scratch.data(), width + 4 + kSlack};
  const Rows grads{rows.row(C, 0), rows.stride};
  float* t = grads.row(C, 0);  // [C] rows, column x - 1
  std::memset(rows.at, 0, 7 * C * rows.stride * sizeof(float));
  const float* in = layer == 1 ? work.a.data() : work.b.data();
  const float* out_grads = layer == 1 ? work.b_grad.data() : work.x_grad.data();
  float* in_grads = layer == 1 ? work.x_grad.data() : work.b_grad.data();
  float* weight_sums = layer == 1 ? share.k1.data() : share.k2.data();
  float* bias_sums = layer == 1 ? share.c1.data() : share.c2.data();
  const float* weights = work.params + (layer == 1 ? work.at.k1 : work.at.k2);
  float turned[C * C * 9];  // a convolution by these is the transpose
  for (int o = 0; o < C; ++o)
    for (int i = 0; i < C; ++i)
      for (int tap = 0; tap < 9; ++tap)
        turned[(i * C + o) * 9 + tap] = weights[(o * C + i) * 9 + 8 - tap];
  const Range mine = range_of(height, thread, work.threads);
  for (size_t r = mine.first; r < mine.last; ++r) {
    take_rows(work, in, r, rows);
    for (ptrdiff_t q = -1; q <= static_cast<ptrdiff_t>(height); ++q) {
      if (clamped(q, height) != r) {
        if (q < static_cast<ptrdiff_t>(r)) q = static_cast<ptrdiff_t>(r) - 1;
        continue;
      }
      const bool first = q == -1 || (q == static_cast<ptrdiff_t>(r) && r > 0);
      take_rows_or_zeros(work, out_grads, q, grads);
      convolve_row<C>(turned, grads, width + 2, t);
      for (int c = 0; c < C; ++c) {
        const float* sum = t + static_cast<size_t>(c) * rows.stride;
        float* to = in_grads + static_cast<size_t>(c) * work.plane + r * width;
        for (size_t x = 0; x < width; ++x) to[x] = first ? sum[x + 1] : to[x] + sum[x + 1];
        to[0] += sum[0];
        to[width - 1] += sum[width + 1];
      }
      if (q == static_cast<ptrdiff_t>(r)) {
        weight_grads<C>(rows, grads, width, weight_sums);
        for (int c = 0; c < C; ++c) {
          V sum = load(bias_sums + c * W);
          for (size_t x = 0; x < width; x += W) sum += load(grads.row(c, 1) + 2 + x);
          store(bias_sums + c * W, sum);
        }
      }
    }
    for (int c = 0; c < C; ++c) {
      const size_t at = static_cast<size_t>(c) * work.plane + r * width;
      float* to = in_grads + at;
      const float* from = out_grads + at;
      for (size_t x = 0; x < width; ++x) to[x] += from[x];
      if (layer == 2) {
        const float* b = work.b.data() + at;
        for (size_t x = 0; x < width; ++x) to[x] = b[x] > 0 ? to[x] : 0;
      }
    }
  }
}

FIT_TARGET void convolve(Work& work, int thread, int layer) {
  work.net.colours == 1 ? convolve_rows<1>(work, thread, layer)
                        : convolve_rows<3>(work, thread, layer);
}

FIT_TARGET void convolve_back(Work& work, int thread, int layer) {
  work.net.colours == 1 ? convolve_rows_back<1>(work, thread, layer)
                        : convolve_rows_back<3>(work, thread, layer);
}

}  // namespace
}  // namespace latentpack::fit_train
