// The context network over blocks of latents: inputs gathered, bits, gradients scattered.
// Included once per instruction set, after fit_train_vectors.h.

namespace latentpack::fit_train {
namespace {

// Where the taps lie, nearest first: a network has the first so many of them.
constexpr int kTapRow[kMaxTaps] = {0, -1, -1, -1, 0, -2, -1, -1, -2, -2, 0, -2, -2, -3};
constexpr int kTapColumn[kMaxTaps] = {-1, 0, -1, 1, -2, 0, -2, 2, -1, 1, -3, -2, 2, 0};
// Those in another frame's grid.
constexpr int kOtherRow[kTemporal] = {0, 0, 0, -1, 1};
constexpr int kOtherColumn[kTemporal] = {0, -1, 1, 0, 0};

// A run of neighbours in a row of a grid that is a part of a block.
struct Run {
  size_t row, column, count, offset;
};

template <typename Each>
FIT_INLINE void each_run(const Grid& grid, size_t first, size_t count, const Each& each) {
  size_t row = first / grid.width, column = first % grid.width;
  for (size_t done = 0; done < count;) {
    const size_t n = count - done < grid.width - column ? count - done : grid.width - column;
    each(Run{row, column, n, done});
    done += n;
    column = 0;
    ++row;
  }
}

// Neighbours of a position in a grid that is coded in passes, and the pass of a position by whether
// its row and column are odd.
constexpr int kNearRow[kNear] = {-1, -1, 1, 1, 0, 0, -1, 1};
constexpr int kNearColumn[kNear] = {-1, 1, -1, 1, -1, 1, 0, 0};
constexpr int kPassOf[2][2] = {{0, 2}, {3, 1}};
// 1 at every other place.
struct Alternating {
  float at[2][kBlock + 2];
  constexpr Alternating() : at{} {
    for (int i = 0; i < kBlock + 2; ++i) at[i % 2][i] = 1;
  }
};
constexpr Alternating kAlternating;

// Which positions of a run see neighbour t: those of a pass behind the neighbour's. For even
// columns and for odd ones.
struct Seen {
  bool even, odd;
  FIT_INLINE Seen(const Run& run, int t) : even(by(run.row & 1, 0, t)), odd(by(run.row & 1, 1, t)) {}
  static FIT_INLINE bool by(size_t row, size_t column, int t) {
    const size_t other = (row + static_cast<size_t>(kNearRow[t] + 2)) & 1,
                 beside = (column + static_cast<size_t>(kNearColumn[t] + 2)) & 1;
    return kPassOf[other][beside] < kPassOf[row][column];
  }
  // 1 at the positions of the run that see it.
  FIT_INLINE const float* mask(const Run& run) const {
    return kAlternating.at[odd ? 1 : 0] + (run.column & 1);
  }
};

FIT_INLINE void gather_near(const Grid& grid, const float* values, const Run& run, float* to) {
  const auto r = static_cast<ptrdiff_t>(run.row), c = static_cast<ptrdiff_t>(run.column);
  for (int t = 0; t < kNear; ++t, to += kBlock) {
    const Seen seen(run, t);
    const float* from = values + grid.at(r + kNearRow[t], c + kNearColumn[t]);
    const float* mask = seen.mask(run);
    if (seen.even && seen.odd)
      std::memcpy(to, from, run.count * sizeof(float));
    else if (seen.even || seen.odd)
      for (size_t i = 0; i < run.count; ++i) to[i] = from[i] * mask[i];
    else
      std::memset(to, 0, run.count * sizeof(float));
  }
  for (int pass = 1; pass < kPasses; ++pass, to += kBlock) {
    const int* of = kPassOf[run.row & 1];
    for (size_t i = 0; i < run.count; ++i) to[i] = of[(run.column + i) & 1] == pass ? 1.0f : 0.0f;
  }
}

FIT_INLINE void scatter_near(const Grid& grid, const float* from, const Run& run, float* grads) {
  const auto r = static_cast<ptrdiff_t>(run.row), c = static_cast<ptrdiff_t>(run.column);
  for (int t = 0; t < kNear; ++t, from += kBlock) {
    const Seen seen(run, t);
    float* to = grads + grid.at(r + kNearRow[t], c + kNearColumn[t]);
    const float* mask = seen.mask(run);
    if (seen.even && seen.odd)
      for (size_t i = 0; i < run.count; ++i) to[i] += from[i];
    else if (seen.even || seen.odd)
      for (size_t i = 0; i < run.count; ++i) to[i] += from[i] * mask[i];
  }
}

struct Gather {
  const Work& work;
  int k;
  float* x;
  FIT_INLINE void operator()(const Run& run) const {
    const Grid& grid = work.grids[k];
    const float* values = work.values.data();
    const auto r = static_cast<ptrdiff_t>(run.row), c = static_cast<ptrdiff_t>(run.column);
    float* to = x + run.offset;
    if (work.net.passes()) gather_near(grid, values, run, to);
    for (int t = 0; t < work.net.taps; ++t)
      std::memcpy(to + t * kBlock, values + grid.at(r + kTapRow[t], c + kTapColumn[t]),
                  run.count * sizeof(float));
    to += work.net.own() * kBlock;
    if (k + 1 < kGrids) {
      const Grid& up = work.grids[k + 1];
      const float* near = values + up.at(r >> 1, 0);
      const float* far = values + up.at((r >> 1) + (r & 1 ? 1 : -1), 0);
      for (size_t i = 0; i < run.count; ++i) {
        const ptrdiff_t column = c + static_cast<ptrdiff_t>(i);
        const ptrdiff_t parent = column >> 1, side = parent + (column & 1 ? 1 : -1);
        to[i] = near[parent];
        to[i + kBlock] = near[side];
        to[i + 2 * kBlock] = far[parent];
        to[i + 3 * kBlock] = far[side];
      }
    }
    if (k + 2 < kGrids) {
      const float* grand = values + work.grids[k + 2].at(r >> 2, 0);
      for (size_t i = 0; i < run.count; ++i)
        to[i + 4 * kBlock] = grand[(c + static_cast<ptrdiff_t>(i)) >> 2];
    }
    to += kCross * kBlock;
    for (int t = 0; t < work.net.temporal; ++t, to += kBlock)
      std::memcpy(to, work.reference.data() + grid.at(r + kOtherRow[t], c + kOtherColumn[t]),
                  run.count * sizeof(float));
  }
};

struct Scatter {
  const Work& work;
  int k;
  const float* g;
  float* grads;
  FIT_INLINE void operator()(const Run& run) const {
    const Grid& grid = work.grids[k];
    const auto r = static_cast<ptrdiff_t>(run.row), c = static_cast<ptrdiff_t>(run.column);
    const float* from = g + run.offset;
    if (work.net.passes()) scatter_near(grid, from, run, grads);
    for (int t = 0; t < work.net.taps; ++t) {
      const float* part = from + t * kBlock;
      float* to = grads + grid.at(r + kTapRow[t], c + kTapColumn[t]);
      size_t i = 0;
      for (; i + W <= run.count; i += W) store(to + i, load(to + i) + load(part + i));
      for (; i < run.count; ++i) to[i] += part[i];
    }
    from += work.net.own() * kBlock;
    if (k + 1 < kGrids) {
      const Grid& up = work.grids[k + 1];
      float* near = grads + up.at(r >> 1, 0);
      float* far = grads + up.at((r >> 1) + (r & 1 ? 1 : -1), 0);
      for (size_t i = 0; i < run.count; ++i) {
        const ptrdiff_t column = c + static_cast<ptrdiff_t>(i);
        const ptrdiff_t parent = column >> 1, side = parent + (column & 1 ? 1 : -1);
        near[parent] += from[i];
        near[side] += from[i + kBlock];
        far[parent] += from[i + 2 * kBlock];
        far[side] += from[i + 3 * kBlock];
      }
    }
    if (k + 2 < kGrids) {
      float* grand = grads + work.grids[k + 2].at(r >> 2, 0);
      for (size_t i = 0; i < run.count; ++i)
        grand[(c + static_cast<ptrdiff_t>(i)) >> 2] += from[i + 4 * kBlock];
    }
  }
};

// Nats of Laplace bins and their derivatives. `mean` and `row` become gradients of the rate; the
// gradient by the value is that by the mean, negated.
FIT_INLINE double rate(const Objective& o, size_t count, float per_nat, const float* values,
                       float* mean, float* row) {
  double nats = 0;
  for (size_t p = 0; p < kBlock; p += W) {
    const Vi valid = lanes() < static_cast<int32_t>(count) - static_cast<int32_t>(p);
    const V raw = load(row + p), top = all(o.rows - 1);
    const V clamped = most(least(raw, top), V{});
    const V t = exponential(clamped * -o.step) / o.b_min;
    const V away = load(values + p) - load(mean + p);
    const V d = magnitude(away);
    // Far: all of the bin on one side of the mean. Near: the mean is inside the bin.
    const V whole = exponential(-t);
    const V far_nats = fma(d - 0.5f, t, -logarithm(0.5f * (1.0f - whole)));
    const V far_t = d - 0.5f - whole / (1.0f - whole);
    const V low = 0.5f - d, high = 0.5f + d;
    const V e_low = exponential(least(-low * t, V{})), e_high = exponential(-high * t);
    const V mass = most(1.0f - 0.5f * (e_low + e_high), all(1e-9f));
    const V near_d = 0.5f * t * (e_low - e_high) / mass;
    const V near_t = -0.5f * fma(low, e_low, high * e_high) / mass;
    const Vi far = d >= 0.5f;
    const V cost = choose(far, far_nats, -logarithm(mass));
    const V by_d = choose(far, t, near_d);
    const V by_row = choose(far, far_t, near_t) * t * -o.step;
    // A row at its limit moves only back inside.
    const Vi stuck = ((raw < V{}) & (by_row > V{})) | ((raw > top) & (by_row < V{}));
    nats += static_cast<double>(total(choose(valid, cost, V{})));
    const V by_mean = choose(away > V{}, -by_d, by_d) * per_nat;
    store(mean + p, choose(valid, by_mean, V{}));
    store(row + p, choose(valid & ~stuck, by_row * per_nat, V{}));
  }
  return nats;
}

struct ContextBuffers {
  float *h2, *x, *h1, *d1, *out, *h2_grad, *d2, *x_grad, *values;
  explicit ContextBuffers(const Net& net, float* at) {
    const auto take = [&at](int rows) {
      float* here = at;
      at += static_cast<size_t>(rows) * kBlock;
      return here;
    };
    h2 = take(net.hidden);  // h2 and x, d1 and out: neighbours, which some products read as one
    x = take(net.inputs());
    h1 = take(net.hidden);
    d1 = take(net.hidden);
    out = take(2);
    h2_grad = take(net.hidden);
    d2 = take(net.hidden);
    x_grad = take(net.inputs());
    values = take(1);
  }
};

FIT_TARGET void context_block(Work& work, Share& share, const ContextBuffers& buffer, int k,
                              size_t first, size_t count) {
  const Net& net = work.net;
  const Grid& grid = work.grids[k];
  const float* params = work.params;
  const int h = net.hidden, n = net.inputs();
  if (count < kBlock || k + 2 >= kGrids)
    std::memset(buffer.x, 0, static_cast<size_t>(n) * kBlock * sizeof(float));
  each_run(grid, first, count, Gather{work, k, buffer.x});
  {
    const float* values = work.values.data();
    float* to = buffer.values;
    if (count < kBlock) std::memset(to, 0, kBlock * sizeof(float));
    each_run(grid, first, count, [&](const Run& run) {
      std::memcpy(to + run.offset,
                  values + grid.at(static_cast<ptrdiff_t>(run.row), static_cast<ptrdiff_t>(run.column)),
                  run.count * sizeof(float));
    });
  }
  Product to_h1{work.panels.w1.data(), h, n, buffer.x, kBlock, buffer.h1, kBlock,
                params + work.at.b1 + k * h};
  multiply<kRelu>(to_h1);
  Product to_h2{work.panels.w2.data(), h, h, buffer.h1, kBlock, buffer.h2, kBlock,
                params + work.at.b2};
  to_h2.other = buffer.h1;
  multiply<kAddRelu>(to_h2);
  multiply<kPlain>({work.panels.out.data(), 2, h + n, buffer.h2, kBlock, buffer.out, kBlock,
                    params + work.at.b3 + k * 2});

  const float per_nat = 1.44269504f / static_cast<float>(work.height * work.width);
  share.nats += rate(work.objective, count, per_nat, buffer.values, buffer.out, buffer.out + kBlock);

  static const float zeros[kMaxHidden] = {};
  Product back2{params + work.at.w3, h, 2, buffer.out, kBlock, buffer.h2_grad, kBlock, zeros};
  back2.other = buffer.h2;
  back2.third = buffer.h1;
  back2.second = buffer.d2;
  multiply<kBoth>(back2);
  Product back1{params + work.at.w2, h, h, buffer.d2, kBlock, buffer.d1, kBlock, zeros};
  back1.other = buffer.h1;
  back1.third = buffer.h2_grad;
  multiply<kAddMask>(back1);
  multiply<kPlain>({work.panels.back.data(), n - net.temporal, h + 2, buffer.d1, kBlock,
                    buffer.x_grad, kBlock, zeros});

  add_outer({buffer.d1, h + 2, buffer.x, kBlock, n, share.w1.data()});
  add_outer({buffer.d2, h, buffer.h1, kBlock, h, share.w2.data()});
  add_outer({buffer.out, 2, buffer.h2, kBlock, h, share.w3.data()});
  add_rows(buffer.d1, h, share.b1.data() + static_cast<size_t>(k * h) * W);
  add_rows(buffer.d2, h, share.b2.data());
  add_rows(buffer.out, 2, share.b3.data() + static_cast<size_t>(k * 2) * W);

  float* grads = share.latent_grads.data();
  each_run(grid, first, count, Scatter{work, k, buffer.x_grad, grads});
  each_run(grid, first, count, [&](const Run& run) {
    float* to =
        grads + grid.at(static_cast<ptrdiff_t>(run.row), static_cast<ptrdiff_t>(run.column));
    for (size_t i = 0; i < run.count; ++i) to[i] -= buffer.out[run.offset + i];
  });
}

// The blocks of all grids, the finest grid's first, are one list that the threads divide.
FIT_TARGET void context(Work& work, int thread) {
  Share& share = work.shares[static_cast<size_t>(thread)];
  const ContextBuffers buffer(work.net, share.scratch.data());
  size_t blocks = 0;
  for (int k = work.net.first; k < kGrids; ++k)
    blocks += (work.grids[k].count() + kBlock - 1) / kBlock;
  const Range mine = range_of(blocks, thread, work.threads);
  size_t block = 0;
  for (int k = work.net.first; k < kGrids; ++k) {
    const size_t count = work.grids[k].count();
    for (size_t first = 0; first < count; first += kBlock, ++block)
      if (block >= mine.first && block < mine.last)
        context_block(work, share, buffer, k, first, count - first < kBlock ? count - first : kBlock);
  }
}

}  // namespace
}  // namespace latentpack::fit_train
