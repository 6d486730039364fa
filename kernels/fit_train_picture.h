// Synthesis, and back. Included once per instruction set, after fit_train_upsample.h.

namespace latentpack::fit_train {
namespace {

FIT_INLINE Product synthesis_hidden(const Work& work, const float* u, float* hidden) {
  return {work.panels.sw1.data(), work.net.width, work.net.active(), u, work.planes[0], hidden,
          kBlock, work.params + work.at.sb1};
}

FIT_TARGET void synthesise(Work& work, int thread) {
  const Net& net = work.net;
  float* hidden = work.shares[static_cast<size_t>(thread)].scratch.data();
  const Range mine = range_of(work.plane / kBlock, thread, work.threads);
  for (size_t block = mine.first; block < mine.last; ++block) {
    const float* u = work.stacks[0].data() + block * kBlock;
    float* a = work.a.data() + block * kBlock;
    multiply<kRelu>(synthesis_hidden(work, u, hidden));
    multiply<kPlain>({work.panels.sskip.data(), net.colours, net.active(), u, work.planes[0], a,
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
    multiply<kPlain>({work.panels.sskip_back.data(), net.grids(), net.colours, a_grad, kBlock,
                      u_grad, work.planes[0], zeros});
    multiply<kPlain>({work.panels.sw1_back.data(), net.grids(), net.width, grads, kBlock, u_grad,
                      work.planes[0], nullptr});
    add_outer({grads, net.width, u, work.planes[0], net.active(), share.sw1.data()});
    add_outer({a_grad, net.colours, hidden, kBlock, net.width, share.sw2.data()});
    add_outer({a_grad, net.colours, u, work.planes[0], net.active(), share.sskip.data()});
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

// How errors of colour c count: the part of the mean squared error that a square is, and the
// gradient by its root.
struct Weighing {
  double part;
  float slope;
  FIT_INLINE Weighing(const Work& work, int c) {
    const double samples = static_cast<double>(work.plane_rows(c) * work.plane_columns(c));
    part = work.net.half ? (c ? 1.0 : 6.0) / 8.0 / samples : 1.0 / (work.net.colours * samples);
    slope = static_cast<float>(2 * work.objective.weight * part);
  }
};

FIT_INLINE double sum_of_squares(const float* values, size_t count) {
  V lanewise{};
  for (size_t x = 0; x + W <= count; x += W) {
    const V v = load(values + x);
    lanewise = fma(v, v, lanewise);
  }
  float rest = 0;
  for (size_t x = count / W * W; x < count; ++x) rest += values[x] * values[x];
  return static_cast<double>(rest + total(lanewise));
}

// A row of x_hat becomes its gradient; returns its part of the mean squared error.
FIT_INLINE double compare_row(const Work& work, int c, size_t r, float* row) {
  const Weighing weighing(work, c);
  const float* picture = work.frame.picture + work.plane_start(c) + r * work.width;
  for (size_t x = 0; x < work.width; ++x) row[x] -= picture[x];
  const double squares = sum_of_squares(row, work.width);
  for (size_t x = 0; x < work.width; ++x) row[x] *= weighing.slope;
  return weighing.part * squares;
}

// The same of two rows whose means of 2 x 2 pixels count; `below` is row r.
FIT_INLINE double compare_means(const Work& work, int c, size_t r, float* above, float* below) {
  const Weighing weighing(work, c);
  const size_t columns = work.width / 2;
  const float* picture = work.frame.picture + work.plane_start(c) + r / 2 * columns;
  float squares = 0;
  for (size_t x = 0; x < columns; ++x) {
    float &a = above[2 * x], &b = above[2 * x + 1], &e = below[2 * x], &f = below[2 * x + 1];
    const float error = 0.25f * ((a + e) + (b + f)) - picture[x];
    squares += error * error;
    a = b = e = f = 0.25f * weighing.slope * error;
  }
  return weighing.part * static_cast<double>(squares);
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
  // Threads get whole pairs of rows where pixels share a sample of a colour.
  const size_t together = work.net.half ? 2 : 1;
  const Range mine = range_of(work.height / together, thread, work.threads);
  for (size_t r = mine.first * together; r < mine.last * together; ++r) {
    take_rows(work, in, r, rows);
    convolve_row<C>(weights, rows, width, out);
    for (int c = 0; c < C; ++c) {
      const float* sum = out + static_cast<size_t>(c) * rows.stride;
      const float* self = rows.row(c, 1) + 1;
      const size_t at = static_cast<size_t>(c) * work.plane + r * width;
      float* to = (layer == 1 ? work.b.data() : work.x_grad.data()) + at;
      if (layer == 1) {
        for (size_t x = 0; x < width; ++x) {
          const float v = sum[x] + self[x] + bias[c];
          to[x] = v > 0 ? v : 0;
        }
      } else {
        for (size_t x = 0; x < width; ++x) to[x] = sum[x] + self[x] + bias[c];
        if (!work.net.half || c == 0)
          share.squares += compare_row(work, c, r, to);
        else if (r & 1)
          share.squares += compare_means(work, c, r, to - width, to);
      }
    }
  }
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
