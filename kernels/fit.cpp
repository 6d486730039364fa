// Fitted pictures: grids in waves of independent positions, pixels in strips of rows.
#include "fit.h"

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <memory>
#include <new>

#include "threads.h"

namespace latentpack::fit {

const Loops& loops_for(Isa isa) {
#if LATENTPACK_X86
  if (isa == Isa::kAvx512) return kAvx512Loops;
  if (isa == Isa::kAvx2) return kAvx2Loops;
#endif
  (void)isa;
  return kScalarLoops;
}

size_t grid_elements(size_t height, size_t width) {
  size_t n = 0;
  for (int k = 0; k < kGrids; ++k) n += rows_of(height, k) * rows_of(width, k);
  return n;
}

size_t Model::numbers(int taps, int hidden) {
  const int n = taps + kCross;
  return static_cast<size_t>(hidden * (n + kGrids + hidden + 1) + 2 * (hidden + n + kGrids));
}

namespace {

int32_t paired(int32_t low, int32_t high) {
  return static_cast<int32_t>((static_cast<uint32_t>(low) & 0xFFFF) |
                              static_cast<uint32_t>(high) << 16);
}

// Rows of weights [units, n] to pairs [tile][pair][unit]; the last of an odd n stands with 0.
void pair_tiles(const int32_t* w, int units, int n, int32_t* to) {
  for (int tile = 0; tile < units; tile += kTile)
    for (int i = 0; i < n; i += 2)
      for (int j = 0; j < kTile; ++j) {
        const int32_t* at = w + (tile + j) * n + i;
        *to++ = paired(at[0], i + 1 < n ? at[1] : 0);
      }
}

void pair_row(const int32_t* w, int n, int32_t* to) {
  for (int i = 0; i < n; i += 2) *to++ = paired(w[i], i + 1 < n ? w[i + 1] : 0);
}

}  // namespace

Model::Model(int taps, int hidden, const int32_t* at)
    : taps(taps), inputs(taps + kCross), hidden(hidden), pairs((inputs + 1) / 2) {
  pair_tiles(at, hidden, inputs, w1);
  at += hidden * inputs;
  for (int k = 0; k < kGrids; ++k, at += hidden) std::copy(at, at + hidden, b1[k]);
  pair_tiles(at, hidden, hidden, w2);
  at += hidden * hidden;
  for (int j = 0; j < hidden; ++j) b2[j] = at[j] * 64 + (1 << 11);
  at += hidden;
  for (int o = 0; o < 2; ++o, at += hidden) pair_row(at, hidden, w3[o]);
  for (int o = 0; o < 2; ++o, at += inputs) pair_row(at, inputs, skip[o]);
  for (int k = 0; k < kGrids; ++k, at += 2) std::copy(at, at + 2, b3[k]);
}

size_t Net::numbers(int s, int c) {
  return static_cast<size_t>(4 * (kGrids - 1) + s * (kGrids + 1 + c) + c * (kGrids + 3 + 18 * c));
}

Net::Net(int s, int c, const float* at) : width(s), colours(c) {
  const auto take = [&at](int n) {
    at += n;
    return at - n;
  };
  up = take(4 * (kGrids - 1));
  w1 = take(s * kGrids);
  b1 = take(s);
  w2 = take(c * s);
  b2 = take(c);
  skip = take(c * kGrids);
  k1 = take(9 * c * c);
  c1 = take(c);
  k2 = take(9 * c * c);
  c2 = take(c);
}

namespace {

// A grid with a border of zeros, one wide.
struct Bordered {
  size_t rows = 0, columns = 0, stride = 0;
  std::vector<int16_t> cells;

  Bordered(size_t rows, size_t columns)
      : rows(rows), columns(columns), stride(columns + 2), cells((rows + 2) * stride) {}
  int16_t* row(size_t r) { return cells.data() + (r + 1) * stride + 1; }
  const int16_t* row(size_t r) const { return cells.data() + (r + 1) * stride + 1; }
  size_t waves() const { return columns + 3 * (rows - 1); }
};

struct Tap {
  int row, column;
};
constexpr Tap kTapAt[kMaxTaps] = {{0, -1},  {-1, 0},  {-1, -1}, {-1, 1}, {0, -2},
                                  {-2, 0},  {-1, -2}, {-1, 2},  {-2, -1}, {-2, 1},
                                  {0, -3},  {-2, -2}, {-2, 2},  {-3, 0}};

// The positions of equal t = column + 3 row of a grid: rows first .. first + count - 1.
struct Band {
  size_t first, count;
  Band(const Bordered& grid, size_t t) {
    first = t < grid.columns ? 0 : (t - grid.columns + 3) / 3;
    count = std::min(grid.rows - 1, t / 3) + 1 - first;
  }
};

// Goes through the waves of a grid. The last waves stand in a ring, one element for each row of
// the grid, so that each tap of a wave is an array.
class Wavefront {
 public:
  Wavefront(const Model& model, const Loops& loops, int k, Bordered& grid, const Bordered* parent,
            const Bordered* grand)
      : model_(model), loops_(loops), k_(k), grid_(grid), parent_(parent), grand_(grand),
        stride_(grid.rows + kBefore + kPad), ring_(kRing * stride_),
        cross_((kCross + 1) * (grid.rows + kPad)), mean_(grid.rows + kPad), sign_(mean_.size()),
        index_(mean_.size()) {}

  // What is known of a wave before its latents are. The waves before it must have been put.
  Wave describe(size_t t) {
    const Band band(grid_, t);
    gather(t, band);
    const int16_t* inputs[kMaxInputs];
    for (int i = 0; i < model_.taps; ++i) {
      const Tap tap = kTapAt[i];
      inputs[i] = wave(t + static_cast<size_t>(tap.column + 3 * tap.row)) + band.first + tap.row;
    }
    // The array behind the last is zeros, which an odd number of inputs is made even with.
    for (int i = 0; i <= kCross; ++i)
      inputs[model_.taps + i] = cross_.data() + static_cast<size_t>(i) * (grid_.rows + kPad);
    const Wave to{mean_.data(), sign_.data(), index_.data()};
    loops_.distribution(model_, k_, inputs, band.count, to);
    return to;
  }

  // Takes over a wave of the grid.
  void put(size_t t) {
    const Band band(grid_, t);
    int16_t* to = wave(t) - kBefore;
    std::fill(to, to + stride_, int16_t{0});
    to += kBefore;
    for (size_t r = band.first; r < band.first + band.count; ++r) to[r] = grid_.row(r)[t - 3 * r];
  }

 private:
  static constexpr size_t kRing = 16;   // a power of two above the reach of the taps, 9 waves
  static constexpr size_t kBefore = 3;  // rows that they reach up

  // t may be a few waves before the first, modulo 2^64.
  int16_t* wave(size_t t) { return ring_.data() + t % kRing * stride_ + kBefore; }

  // The taps into the coarser grids.
  void gather(size_t t, const Band& band) {
    if (!parent_) return;
    const size_t room = grid_.rows + kPad;
    for (size_t i = 0; i < band.count; ++i) {
      const size_t r = band.first + i, c = t - 3 * r;
      const int16_t* near = parent_->row(r >> 1) + (c >> 1);
      const ptrdiff_t down = r & 1 ? static_cast<ptrdiff_t>(parent_->stride)
                                   : -static_cast<ptrdiff_t>(parent_->stride);
      const ptrdiff_t right = c & 1 ? 1 : -1;
      int16_t* to = cross_.data() + i;
      to[0] = near[0];
      to[room] = near[right];
      to[2 * room] = near[down];
      to[3 * room] = near[down + right];
      to[4 * room] = grand_ ? grand_->row(r >> 2)[c >> 2] : int16_t{0};
    }
  }

  const Model& model_;
  const Loops& loops_;
  const int k_;
  const Bordered& grid_;
  const Bordered *parent_, *grand_;
  const size_t stride_;
  std::vector<int16_t> ring_, cross_, mean_, sign_;
  std::vector<uint8_t> index_;
};

// Calls work(first, last) for parts of 0 .. count, on several threads.
template <typename Work>
void share(size_t count, int threads, size_t least, const Work& work) {
  const size_t wanted = std::max<size_t>(1, static_cast<size_t>(std::max(1, threads)));
  const size_t parts = std::max<size_t>(1, std::min(wanted, count / std::max<size_t>(1, least)));
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  const auto run = [&] {
    try {
      for (size_t p; (p = next++) < parts;) work(count * p / parts, count * (p + 1) / parts);
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  };
  std::vector<std::thread> others;
  start_others(others, parts, [&](size_t) { return std::thread(run); });
  run();
  for (std::thread& other : others) other.join();
  if (failed) throw std::bad_alloc();
}

std::vector<Bordered> empty_grids(size_t height, size_t width) {
  std::vector<Bordered> grids;
  for (int k = 0; k < kGrids; ++k) grids.emplace_back(rows_of(height, k), rows_of(width, k));
  return grids;
}

const Bordered* coarser(const std::vector<Bordered>& grids, int k) {
  return k < kGrids ? &grids[static_cast<size_t>(k)] : nullptr;
}

}  // namespace

void symbols(const Model& model, Isa isa, const int16_t* given, size_t height, size_t width,
             unsigned coded, int threads, int16_t* symbols, uint8_t* index) {
  std::vector<Bordered> grids = empty_grids(height, width);
  for (Bordered& grid : grids)
    for (size_t r = 0; r < grid.rows; ++r, given += grid.columns)
      std::copy(given, given + grid.columns, grid.row(r));
  for (int k = kGrids - 1; k >= 0; --k) {
    if (!(coded >> k & 1)) continue;
    Bordered& grid = grids[static_cast<size_t>(k)];
    std::vector<size_t> start(grid.waves() + 1);
    for (size_t t = 0; t < grid.waves(); ++t) start[t + 1] = start[t] + Band(grid, t).count;
    share(grid.waves(), threads, 64, [&](size_t first, size_t last) {
      Wavefront front(model, loops_for(isa), k, grid, coarser(grids, k + 1), coarser(grids, k + 2));
      for (size_t t = first > 9 ? first - 9 : 0; t < first; ++t) front.put(t);
      for (size_t t = first; t < last; ++t) {
        const Band band(grid, t);
        const Wave wave = front.describe(t);
        for (size_t i = 0; i < band.count; ++i) {
          const size_t r = band.first + i;
          const int y = grid.row(r)[t - 3 * r];
          symbols[start[t] + i] = static_cast<int16_t>(wave.sign[i] * (y - wave.mean[i]));
        }
        std::copy(wave.index, wave.index + band.count, index + start[t]);
        front.put(t);
      }
    });
    symbols += start.back();
    index += start.back();
  }
}

namespace {

int decode_grid(const Model& model, const Loops& loops, int k, std::vector<Bordered>& grids,
                Prepared& tables, Isa isa, Decoding& state, const uint8_t* words, size_t bytes) {
  Bordered& grid = grids[static_cast<size_t>(k)];
  Wavefront front(model, loops, k, grid, coarser(grids, k + 1), coarser(grids, k + 2));
  std::vector<int16_t> found(grid.rows + kPad);
  for (size_t t = 0; t < grid.waves(); ++t) {
    const Band band(grid, t);
    const Wave wave = front.describe(t);
    const Status status = latentpack::decode(tables, isa, state, words, bytes, wave.index,
                                             band.count, found.data());
    if (status != Status::kOk) return static_cast<int>(status);
    int worst = 0;
    for (size_t i = 0; i < band.count; ++i) {
      const size_t r = band.first + i;
      const int y = wave.mean[i] + wave.sign[i] * found[i];
      worst = std::max(worst, y < 0 ? -y : y);
      grid.row(r)[t - 3 * r] = static_cast<int16_t>(y);
    }
    if (worst > kLimit) return kOutside;
    front.put(t);
  }
  return 0;
}

}  // namespace

int decode(const Model& model, Prepared& tables, Isa isa, Decoding& state, const uint8_t* words,
           size_t bytes, size_t height, size_t width, unsigned coded, int16_t* to) {
  std::vector<Bordered> grids = empty_grids(height, width);
  for (int k = kGrids - 1; k >= 0; --k) {
    if (!(coded >> k & 1)) continue;
    const int wrong =
        decode_grid(model, loops_for(isa), k, grids, tables, isa, state, words, bytes);
    if (wrong) return wrong;
  }
  for (const Bordered& grid : grids)
    for (size_t r = 0; r < grid.rows; ++r, to += grid.columns)
      std::copy(grid.row(r), grid.row(r) + grid.columns, to);
  return 0;
}

namespace {

// Rounding to nearest, subnormal numbers kept, whatever the thread had set; put back at the end.
class PlainArithmetic {
 public:
  PlainArithmetic() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~PlainArithmetic() { std::fesetenv(&before_); }
  PlainArithmetic(const PlainArithmetic&) = delete;
  PlainArithmetic& operator=(const PlainArithmetic&) = delete;

 private:
  std::fenv_t before_;
};

// Planes of floats, with room around each row for its neighbours and for whole vectors.
struct Planes {
  static constexpr size_t kFront = 16;
  size_t count, rows, columns, stride;
  std::vector<float> cells;

  Planes(size_t count, size_t rows, size_t columns)
      : count(count), rows(rows), columns(columns), stride(kFront + (columns + 31) / 16 * 16 + kPad),
        cells(count * rows * stride) {}
  float* row(size_t plane, size_t r) {
    return cells.data() + (plane * rows + r) * stride + kFront;
  }
  const float* row(size_t plane, size_t r) const {
    return const_cast<Planes*>(this)->row(plane, r);
  }
};

// Repeats the ends of a row, `reach` times each.
void repeat_ends(float* row, size_t n, size_t reach) {
  for (size_t i = 1; i <= reach; ++i) {
    row[-static_cast<ptrdiff_t>(i)] = row[0];
    row[n - 1 + i] = row[n - 1];
  }
}

// Row r of a plane of twice the size; `between` takes the row of half the width.
void up_row(const Loops& loops, const Planes& from, size_t plane, const float* kernel, size_t r,
            float* between, float* out) {
  const auto last = static_cast<ptrdiff_t>(from.rows) - 1;
  const float mirrored[4] = {kernel[3], kernel[2], kernel[1], kernel[0]};
  const ptrdiff_t top = static_cast<ptrdiff_t>(r / 2) - (r % 2 ? 1 : 2);
  const float* rows[4];
  for (ptrdiff_t j = 0; j < 4; ++j)
    rows[j] = from.row(plane, static_cast<size_t>(std::clamp<ptrdiff_t>(top + j, 0, last)));
  loops.up_rows(rows, r % 2 ? mirrored : kernel, from.columns, between);
  repeat_ends(between, from.columns, 2);
  loops.up_columns(between, kernel, from.columns, out);
}

void widen(const int16_t* grid, size_t n, float* to) {
  for (size_t i = 0; i < n; ++i) to[i] = grid[i];
}

// The stack of grids 6 to 1 at the size of grid 1.
Planes half_stack(const Net& net, const Loops& loops, const int16_t* const* grids, size_t height,
                  size_t width) {
  const int last = kGrids - 1;
  Planes u(1, rows_of(height, last), rows_of(width, last));
  for (size_t r = 0; r < u.rows; ++r) widen(grids[last] + r * u.columns, u.columns, u.row(0, r));
  for (int k = last - 1; k >= 1; --k) {
    Planes next(u.count + 1, rows_of(height, k), rows_of(width, k));
    std::vector<float> between(u.stride + 2 * Planes::kFront), out(2 * u.stride + 2 * kPad);
    for (size_t p = 0; p < u.count; ++p)
      for (size_t r = 0; r < next.rows; ++r) {
        up_row(loops, u, p, net.up + 4 * k, r, between.data() + Planes::kFront, out.data());
        std::copy(out.begin(), out.begin() + static_cast<ptrdiff_t>(next.columns), next.row(p, r));
      }
    for (size_t r = 0; r < next.rows; ++r)
      widen(grids[k] + r * next.columns, next.columns, next.row(u.count, r));
    u = std::move(next);
  }
  return u;
}

// Rows of pixels, top to bottom. The last rows of a and b stand in rings.
class Strip {
 public:
  Strip(const Net& net, const Loops& loops, const Planes& half, const int16_t* finest,
        size_t height, size_t width)
      : net_(net), loops_(loops), half_(half), finest_(finest), height_(height), width_(width),
        between_(half.stride + 2 * Planes::kFront), u_(kGrids, 1, 2 * half.columns + kPad),
        a_(colours(), kRing, width), b_(colours(), kRing, width), x_hat_(colours(), 1, width) {}

  void paint(size_t first, size_t last, uint8_t* pixels) {
    const size_t begin = first > 2 ? first - 2 : 0, end = std::min(height_, last + 2);
    const size_t begin_b = first > 1 ? first - 1 : 0, end_b = std::min(height_, last + 1);
    size_t next_b = begin_b, next = first;
    for (size_t r = begin; r < end; ++r) {
      make_a(r);
      // A row of b needs the row of a below it, unless there is none.
      for (; next_b < end_b && std::min(next_b + 1, height_ - 1) <= r; ++next_b) {
        float* to[kMaxColours];
        around(true, a_, next_b, to);
        for (size_t c = 0; c < colours(); ++c) repeat_ends(to[c], width_, 1);
        for (; next < last && std::min(next + 1, height_ - 1) <= next_b; ++next)
          make_pixels(next, pixels);
      }
    }
  }

 private:
  static constexpr size_t kRing = 4;  // a power of two above the 3 rows of a kernel

  size_t colours() const { return static_cast<size_t>(net_.colours); }

  void make_a(size_t r) {
    const float* u[kGrids];
    for (size_t p = 0; p + 1 < kGrids; ++p) {
      up_row(loops_, half_, p, net_.up, r, between_.data() + Planes::kFront, u_.row(p, 0));
      u[p] = u_.row(p, 0);
    }
    widen(finest_ + r * width_, width_, u_.row(kGrids - 1, 0));
    u[kGrids - 1] = u_.row(kGrids - 1, 0);
    float* to[kMaxColours];
    for (size_t c = 0; c < colours(); ++c) to[c] = a_.row(c, r % kRing);
    loops_.pixels(net_, u, width_, to);
    for (size_t c = 0; c < colours(); ++c) repeat_ends(to[c], width_, 1);
  }

  // Row r of a convolution of a ring, to a row of the other ring or of the result.
  void around(bool first, const Planes& ring, size_t r, float** to) {
    const float* rows[3 * kMaxColours];
    const size_t at[3] = {r ? r - 1 : 0, r, std::min(r + 1, height_ - 1)};
    for (size_t c = 0; c < colours(); ++c) {
      for (size_t i = 0; i < 3; ++i) rows[3 * c + i] = ring.row(c, at[i] % kRing);
      to[c] = first ? b_.row(c, r % kRing) : x_hat_.row(c, 0);
    }
    loops_.around(net_, first, rows, width_, to);
  }

  void make_pixels(size_t r, uint8_t* pixels) {
    float* x_hat[kMaxColours];
    around(false, b_, r, x_hat);
    for (size_t c = 0; c < colours(); ++c)
      loops_.to_bytes(x_hat[c], width_, pixels + (c * height_ + r) * width_);
  }

  const Net& net_;
  const Loops& loops_;
  const Planes& half_;
  const int16_t* finest_;
  const size_t height_, width_;
  std::vector<float> between_;
  Planes u_, a_, b_, x_hat_;
};

}  // namespace

void synthesise(const Net& net, Isa isa, const int16_t* grids, size_t height, size_t width,
                int threads, uint8_t* pixels) {
  const PlainArithmetic plain;
  const Loops& loops = loops_for(isa);
  const int16_t* at[kGrids];
  for (int k = 0; k < kGrids; ++k) {
    at[k] = grids;
    grids += rows_of(height, k) * rows_of(width, k);
  }
  const Planes half = half_stack(net, loops, at, height, width);
  share(height, threads, 32, [&](size_t first, size_t last) {
    const PlainArithmetic plain_here;
    Strip(net, loops, half, at[0], height, width).paint(first, last, pixels);
  });
}

}  // namespace latentpack::fit
