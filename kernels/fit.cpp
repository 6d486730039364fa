// Fitted pictures and frames: grids in waves of independent positions.
#include "fit.h"

#include <algorithm>
#include <numeric>

#include "fit_grids.h"
#include "fit_share.h"

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

size_t Model::numbers(int n, int hidden) {
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

// Columns of weights [rows, n].
std::vector<int32_t> taken(const int32_t* w, int rows, int n, const std::vector<int>& columns) {
  std::vector<int32_t> to;
  for (int row = 0; row < rows; ++row)
    for (int i : columns) to.push_back(w[row * n + i]);
  return to;
}

}  // namespace

Model::Model(int n, int hidden, const int32_t* at, const std::vector<int>& columns, int one)
    : inputs(static_cast<int>(columns.size())), hidden(hidden), pairs((inputs + 1) / 2) {
  const int32_t* first = at;
  pair_tiles(taken(at, hidden, n, columns).data(), hidden, inputs, w1);
  at += hidden * n;
  for (int k = 0; k < kGrids; ++k, at += hidden)
    for (int j = 0; j < hidden; ++j) b1[k][j] = at[j] + (one < 0 ? 0 : first[j * n + one]);
  pair_tiles(at, hidden, hidden, w2);
  at += hidden * hidden;
  for (int j = 0; j < hidden; ++j) b2[j] = at[j] * 64 + (1 << 11);
  at += hidden;
  for (int o = 0; o < 2; ++o, at += hidden) pair_row(at, hidden, w3[o]);
  const int32_t* last = at;
  for (int o = 0; o < 2; ++o, at += n) pair_row(taken(at, 1, n, columns).data(), inputs, skip[o]);
  for (int k = 0; k < kGrids; ++k, at += 2)
    for (int o = 0; o < 2; ++o) b3[k][o] = at[o] + (one < 0 ? 0 : last[o * n + one]);
}

Model causal_model(int taps, int hidden, const int32_t* arrays) {
  std::vector<int> columns(static_cast<size_t>(taps + kCross));
  std::iota(columns.begin(), columns.end(), 0);
  return Model(taps + kCross, hidden, arrays, columns, -1);
}

namespace {

struct Tap {
  int row, column;
};
constexpr Tap kTapAt[kMaxTaps] = {{0, -1},  {-1, 0},  {-1, -1}, {-1, 1}, {0, -2},
                                  {-2, 0},  {-1, -2}, {-1, 2},  {-2, -1}, {-2, 1},
                                  {0, -3},  {-2, -2}, {-2, 2},  {-3, 0}};

size_t waves_of(const Bordered& grid) { return grid.columns + 3 * (grid.rows - 1); }

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
  Wavefront(const Model& model, const Loops& loops, int k, const std::vector<Bordered>& grids)
      : model_(model), loops_(loops), k_(k), grid_(grids[static_cast<size_t>(k)]),
        parent_(grid_at(grids, k + 1)), grand_(grid_at(grids, k + 2)),
        stride_(grid_.rows + kBefore + kPad), ring_(kRing * stride_),
        cross_((kCross + 1) * (grid_.rows + kPad)), mean_(grid_.rows + kPad), sign_(mean_.size()),
        index_(mean_.size()) {}

  // What is known of a wave before its latents are. The waves before it must have been put.
  Wave describe(size_t t) {
    const Band band(grid_, t);
    gather(t, band);
    const int16_t* inputs[kMaxInputs];
    const int taps = model_.inputs - kCross;
    for (int i = 0; i < taps; ++i) {
      const Tap tap = kTapAt[i];
      inputs[i] = wave(t + static_cast<size_t>(tap.column + 3 * tap.row)) + band.first + tap.row;
    }
    // The array behind the last is zeros, which an odd number of inputs is made even with.
    for (int i = 0; i <= kCross; ++i)
      inputs[taps + i] = cross_.data() + static_cast<size_t>(i) * (grid_.rows + kPad);
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

}  // namespace

void symbols(const Model& model, Isa isa, const int16_t* given, size_t height, size_t width,
             unsigned coded, int threads, int16_t* symbols, uint8_t* index) {
  std::vector<Bordered> grids = empty_grids(height, width);
  for (Bordered& grid : grids) given = grid.take(given);
  for (int k = kGrids - 1; k >= 0; --k) {
    if (!(coded >> k & 1)) continue;
    const Bordered& grid = grids[static_cast<size_t>(k)];
    std::vector<size_t> start(waves_of(grid) + 1);
    for (size_t t = 0; t < waves_of(grid); ++t) start[t + 1] = start[t] + Band(grid, t).count;
    share(waves_of(grid), threads, 64, [&](size_t first, size_t last) {
      Wavefront front(model, loops_for(isa), k, grids);
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

int decode_grid(const Model& model, int k, std::vector<Bordered>& grids, Prepared& tables, Isa isa,
                Decoding& state, const uint8_t* words, size_t bytes) {
  Bordered& grid = grids[static_cast<size_t>(k)];
  Wavefront front(model, loops_for(isa), k, grids);
  std::vector<int16_t> found(grid.rows + kPad);
  for (size_t t = 0; t < waves_of(grid); ++t) {
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
    const int wrong = decode_grid(model, k, grids, tables, isa, state, words, bytes);
    if (wrong) return wrong;
  }
  for (const Bordered& grid : grids) to = grid.give(to);
  return 0;
}

}  // namespace latentpack::fit
