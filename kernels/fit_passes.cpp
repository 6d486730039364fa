// Latents of fitted frames: grids in four passes over 2 x 2 positions.
#include <algorithm>

#include "fit_grids.h"
#include "fit_share.h"

namespace latentpack::fit {

namespace {

struct Offset {
  int row, column;
};
constexpr Offset kNearAt[kNear] = {{-1, -1}, {-1, 1}, {1, -1}, {1, 1},
                                   {0, -1},  {0, 1},  {-1, 0}, {1, 0}};
constexpr Offset kTemporalAt[kTemporal] = {{0, 0}, {0, -1}, {0, 1}, {-1, 0}, {1, 0}};
constexpr Offset kParityOf[kPasses] = {{0, 0}, {1, 1}, {0, 1}, {1, 0}};
// The neighbours of earlier passes that the positions of a pass have: first to last - 1.
struct Range {
  int first, last;
};
constexpr Range kNearOf[kPasses] = {{0, 0}, {0, 4}, {4, 8}, {0, 8}};

}  // namespace

std::vector<Model> pass_models(int temporal, int hidden, const int32_t* arrays) {
  const int others = kNear + kPasses - 1, inputs = others + kCross + temporal;
  std::vector<Model> models;
  for (int pass = 0; pass < kPasses; ++pass) {
    std::vector<int> columns;
    for (int i = kNearOf[pass].first; i < kNearOf[pass].last; ++i) columns.push_back(i);
    for (int i = others; i < inputs; ++i) columns.push_back(i);
    models.emplace_back(inputs, hidden, arrays, columns, pass ? kNear + pass - 1 : -1);
  }
  return models;
}

namespace {

// A grid by whether rows and columns are odd: four grids of half the size.
class Split {
 public:
  explicit Split(const Bordered& grid) {
    for (size_t parity = 0; parity < 4; ++parity)
      parts_.emplace_back((grid.rows + 1 - parity / 2) / 2, (grid.columns + 1 - parity % 2) / 2);
  }
  void take(const Bordered& grid) {
    for (size_t r = 0; r < grid.rows; ++r) {
      const int16_t* from = grid.row(r);
      const Bordered& odd = part(r & 1, 1);
      int16_t *a = part(r & 1, 0).row(r / 2), *b = part(r & 1, 1).row(r / 2);
      for (size_t i = 0; i < odd.columns; ++i) {
        a[i] = from[2 * i];
        b[i] = from[2 * i + 1];
      }
      if (grid.columns & 1) a[grid.columns / 2] = from[grid.columns - 1];
    }
  }
  void give(Bordered& grid) const {
    for (size_t r = 0; r < grid.rows; ++r) {
      int16_t* to = grid.row(r);
      const Bordered& odd = part(r & 1, 1);
      const int16_t *a = part(r & 1, 0).row(r / 2), *b = odd.row(r / 2);
      for (size_t i = 0; i < odd.columns; ++i) {
        to[2 * i] = a[i];
        to[2 * i + 1] = b[i];
      }
      if (grid.columns & 1) to[grid.columns - 1] = a[grid.columns / 2];
    }
  }
  Bordered& part(size_t row, size_t column) { return parts_[2 * row + column]; }
  const Bordered& part(size_t row, size_t column) const { return parts_[2 * row + column]; }
  // The row whose first element is a neighbour of position (row, column) of the grid.
  const int16_t* at(ptrdiff_t row, ptrdiff_t column) const {
    return part(static_cast<size_t>(row & 1), static_cast<size_t>(column & 1))
        .at(row >> 1, column >> 1);
  }

 private:
  std::vector<Bordered> parts_;
};

// The positions of a pass over a grid, row by row: what is known before their latents are.
class Pass {
 public:
  Pass(const Model& model, const Loops& loops, int k, int pass, const Split& grid,
       const Bordered* parent, const Bordered* grand, const Split* other)
      : model_(model), loops_(loops), k_(k), pass_(pass), grid_(grid), parent_(parent),
        grand_(grand), other_(other), parity_(kParityOf[pass]),
        columns_(grid.part(static_cast<size_t>(parity_.row), static_cast<size_t>(parity_.column)).columns),
        nothing_(columns_ + kPad), grand_row_(columns_ + kPad) {}

  // Row i of the pass.
  void describe(size_t i, const Wave& to) {
    const auto r = static_cast<ptrdiff_t>(2 * i) + parity_.row, c = ptrdiff_t{parity_.column};
    const int16_t* inputs[kMaxInputs];
    int n = 0;
    for (int t = kNearOf[pass_].first; t < kNearOf[pass_].last; ++t)
      inputs[n++] = grid_.at(r + kNearAt[t].row, c + kNearAt[t].column);
    n += coarser(i, inputs + n);
    for (int t = 0; other_ && t < kTemporal; ++t)
      inputs[n++] = other_->at(r + kTemporalAt[t].row, c + kTemporalAt[t].column);
    inputs[n] = nothing_.data();  // an odd number is made even with it
    loops_.distribution(model_, k_, inputs, columns_, to);
  }

 private:
  int coarser(size_t i, const int16_t** inputs) {
    const auto row = static_cast<ptrdiff_t>(i), side = row + (parity_.row ? 1 : -1),
               beside = ptrdiff_t{parity_.column ? 1 : -1};
    std::fill(inputs, inputs + kCross, nothing_.data());
    if (parent_) {
      inputs[0] = parent_->at(row, 0);
      inputs[1] = parent_->at(row, beside);
      inputs[2] = parent_->at(side, 0);
      inputs[3] = parent_->at(side, beside);
    }
    if (grand_) {
      const int16_t* from = grand_->row(i / 2);
      for (size_t j = 0; j < columns_; ++j) grand_row_[j] = from[j / 2];
      inputs[4] = grand_row_.data();
    }
    return kCross;
  }

  const Model& model_;
  const Loops& loops_;
  const int k_, pass_;
  const Split& grid_;
  const Bordered *parent_, *grand_;
  const Split* other_;
  const Offset parity_;
  const size_t columns_;
  std::vector<int16_t> nothing_, grand_row_;
};

// Grid k of a frame and what its contexts reach into.
class Grid {
 public:
  Grid(const std::vector<Model>& models, Isa isa, int k, const std::vector<Bordered>& grids,
       const int16_t* reference)
      : models_(models), isa_(isa), k_(k), parent_(grid_at(grids, k + 1)),
        grand_(grid_at(grids, k + 2)), split_(grids[static_cast<size_t>(k)]), other_(split_) {
    if (!reference) return;
    for (int finer = 0; finer < k; ++finer) {
      const Bordered& grid = grids[static_cast<size_t>(finer)];
      reference += grid.rows * grid.columns;
    }
    const Bordered& same = grids[static_cast<size_t>(k)];
    Bordered taken(same.rows, same.columns);
    taken.take(reference);
    other_.take(taken);
    refers_ = true;
  }
  Split& split() { return split_; }
  Bordered& part(int pass) {
    return split_.part(static_cast<size_t>(kParityOf[pass].row),
                      static_cast<size_t>(kParityOf[pass].column));
  }
  Pass pass(int number) const {
    return Pass(models_[static_cast<size_t>(number)], loops_for(isa_), k_, number, split_, parent_,
                grand_, refers_ ? &other_ : nullptr);
  }

 private:
  const std::vector<Model>& models_;
  const Isa isa_;
  const int k_;
  const Bordered *parent_, *grand_;
  Split split_, other_;
  bool refers_ = false;
};

}  // namespace

void frame_symbols(const std::vector<Model>& models, Isa isa, const int16_t* given,
                   const int16_t* reference, size_t height, size_t width, unsigned coded,
                   int threads, int16_t* symbols, uint8_t* index) {
  std::vector<Bordered> grids = empty_grids(height, width);
  for (Bordered& grid : grids) given = grid.take(given);
  for (int k = kGrids - 1; k >= 0; --k) {
    if (!(coded >> k & 1)) continue;
    Grid grid(models, isa, k, grids, reference);
    grid.split().take(grids[static_cast<size_t>(k)]);
    for (int number = 0; number < kPasses; ++number) {
      const Bordered& part = grid.part(number);
      const size_t n = part.columns;
      share(part.rows, threads, 16, [&](size_t first, size_t last) {
        Pass pass = grid.pass(number);
        std::vector<int16_t> mean(n + kPad), sign(n + kPad);
        std::vector<uint8_t> rows(n + kPad);
        for (size_t i = first; i < last; ++i) {
          pass.describe(i, {mean.data(), sign.data(), rows.data()});
          std::copy(rows.begin(), rows.begin() + static_cast<ptrdiff_t>(n), index + i * n);
          for (size_t j = 0; j < n; ++j)
            symbols[i * n + j] = static_cast<int16_t>(sign[j] * (part.row(i)[j] - mean[j]));
        }
      });
      symbols += part.rows * n;
      index += part.rows * n;
    }
  }
}

namespace {

// What is known of the latents of a pass, and their symbols.
struct Described {
  std::vector<int16_t> mean, sign, symbols;
  std::vector<uint8_t> index;
  explicit Described(size_t most) : mean(most), sign(most), symbols(most), index(most) {}
};

int decode_pass(Grid& grid, int number, Described& described, Prepared& tables, Isa isa,
                Decoding& state, const uint8_t* words, size_t bytes) {
  Bordered& part = grid.part(number);
  const size_t n = part.columns;
  Pass pass = grid.pass(number);
  for (size_t i = 0; i < part.rows; ++i)
    pass.describe(i, {described.mean.data() + i * n, described.sign.data() + i * n,
                      described.index.data() + i * n});
  const Status status = latentpack::decode(tables, isa, state, words, bytes, described.index.data(),
                                           part.rows * n, described.symbols.data());
  if (status != Status::kOk) return static_cast<int>(status);
  int worst = 0;
  for (size_t i = 0; i < part.rows; ++i) {
    int16_t* to = part.row(i);
    for (size_t j = 0; j < n; ++j) {
      const int y = described.mean[i * n + j] + described.sign[i * n + j] * described.symbols[i * n + j];
      worst = std::max(worst, y < 0 ? -y : y);
      to[j] = static_cast<int16_t>(y);
    }
  }
  return worst > kLimit ? kOutside : 0;
}

}  // namespace

int frame_decode(const std::vector<Model>& models, Prepared& tables, Isa isa, Decoding& state,
                 const uint8_t* words, size_t bytes, const int16_t* reference, size_t height,
                 size_t width, unsigned coded, int16_t* to) {
  std::vector<Bordered> grids = empty_grids(height, width);
  int finest = 0;
  while (finest + 1 < kGrids && !(coded >> finest & 1)) ++finest;
  Described described((rows_of(height, finest) + 1) / 2 * ((rows_of(width, finest) + 1) / 2) + kPad);
  for (int k = kGrids - 1; k >= 0; --k) {
    if (!(coded >> k & 1)) continue;
    Grid grid(models, isa, k, grids, reference);
    for (int number = 0; number < kPasses; ++number) {
      const int wrong =
          decode_pass(grid, number, described, tables, isa, state, words, bytes);
      if (wrong) return wrong;
    }
    grid.split().give(grids[static_cast<size_t>(k)]);
  }
  for (const Bordered& grid : grids) to = grid.give(to);
  return 0;
}

}  // namespace latentpack::fit
