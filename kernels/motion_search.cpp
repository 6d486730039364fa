// Search for motion that is cheap to code: roots in rows, each a leaf or four quarters, whatever costs
// less; vectors from what is around, above in the tree, before in time and far away at a small size.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <vector>

#include "motion.h"
#include "motion_field.h"
#include "motion_pictures.h"

namespace latentpack::motion {
namespace {

constexpr int kUnit = 32;  // parts of a bit

// What efforts mean.
struct Effort {
  int far;      // reach of the exhaustive search at a quarter of the size
  int passes;
  int around;   // directions of refinement
  int first;    // its first step, in quarters of a sample
  int joint;    // rounds of both vectors together
};
constexpr Effort kEfforts[] = {
    {12, 1, 8, 4, 1},
    {16, 2, 8, 8, 2},
    {24, 3, 8, 16, 3},
};

int log2_of(int side) { return side == 8 ? 3 : side == 4 ? 2 : side == 2 ? 1 : 0; }

// Bits of a difference, in 32nds.
int bits_of(int difference) {
  static const std::array<int, 256> table = [] {
    std::array<int, 256> t{};
    for (int i = 0; i < 256; ++i)
      t[static_cast<size_t>(i)] = static_cast<int>(kUnit * (i ? 2.5 + 1.7 * std::log2(i) : 1.0));
    return t;
  }();
  const int size = std::abs(difference);
  return size < 256 ? table[static_cast<size_t>(size)] : 17 * kUnit + (size >> 9);
}

// Vectors of blocks of 32 x 32 samples, by exhaustive search at a quarter of the size.
class Far {
 public:
  Far(const Loops& loops, const Padded& current, const uint8_t* reference, const Wanted& wanted,
      ptrdiff_t inner_rows, ptrdiff_t inner_columns, int reach, double lambda)
      : columns_(static_cast<int>((inner_columns + 31) / 32)) {
    const ptrdiff_t rows = (inner_rows + 31) / 32 * 8, columns = (inner_columns + 31) / 32 * 8;
    const auto h = static_cast<ptrdiff_t>(wanted.rows), w = static_cast<ptrdiff_t>(wanted.columns);
    const Padded whole(reference, h, w, 4 * rows, 4 * columns, 0);
    const auto small = quarter_size(whole, rows, columns);
    const auto x_small = quarter_size(current, rows, columns);
    const Padded x(x_small.data(), rows, columns, rows, columns, 0);
    const Padded there(small.data(), rows, columns, rows, columns, reach + 8);
    for (ptrdiff_t r = 0; r < rows; r += 8) {
      for (ptrdiff_t c = 0; c < columns; c += 8) {
        Vector best{0, 0};
        double least = 1e30;
        for (int dy = -reach; dy <= reach; ++dy) {
          for (int dx = -reach; dx <= reach; ++dx) {
            const uint32_t sad = loops.sad(x.at(r, c), x.stride, there.at(r + dy, c + dx), nullptr,
                                           there.stride, 8, 8);
            const double cost = sad + lambda * (std::abs(dy) + std::abs(dx)) * 0.25;
            if (cost < least) {
              least = cost;
              best = {static_cast<int16_t>(16 * dy), static_cast<int16_t>(16 * dx)};
            }
          }
        }
        found_.push_back(best);
      }
    }
  }
  Vector at(int r, int c) const {  // of a block of 8 x 8 samples
    const int rows = static_cast<int>(found_.size()) / columns_;
    return found_[static_cast<size_t>(std::clamp(r / 4, 0, rows - 1) * columns_ +
                                      std::clamp(c / 4, 0, columns_ - 1))];
  }

 private:
  const int columns_;
  std::vector<Vector> found_;
};

// Reverse water-filling: a coefficient whose square is below 1 / (2 ln 2 lmbda) is not worth coding.
int scale_of(double lmbda) {
  return static_cast<int>(std::clamp(32768.0 * std::sqrt(2 * std::log(2.0) * lmbda), 1.0, 65535.0));
}

// A leaf and what it costs, in 32nds of a bit.
struct Found {
  Motion motion;
  int64_t cost;
};

class Search {
 public:
  Search(const Loops& loops, const Wanted& wanted)
      : loops_(loops), wanted_(wanted), effort_(kEfforts[wanted.effort]),
        rows_(static_cast<int>((wanted.rows + 7) / 8)),
        columns_(static_cast<int>((wanted.columns + 7) / 8)),
        x_(wanted.current, static_cast<ptrdiff_t>(wanted.rows),
           static_cast<ptrdiff_t>(wanted.columns), (rows_ + 3) / 4 * 32, (columns_ + 3) / 4 * 32, 0),
        two_(wanted.references[1]),
        scale_(scale_of(wanted.lmbda)) {
    const auto h = static_cast<ptrdiff_t>(wanted.rows), w = static_cast<ptrdiff_t>(wanted.columns);
    for (int i = 0; i <= two_; ++i) {
      quarters_[i] = std::make_unique<Quarters>(loops, wanted.references[i], h, w, 8 * rows_,
                                                8 * columns_);
      far_[i] = std::make_unique<Far>(loops, x_, wanted.references[i], wanted, 8 * rows_,
                                      8 * columns_, effort_.far, std::sqrt(1.0 / wanted.lmbda));
    }
  }

  void run(Vector* vectors, uint8_t* modes) {
    std::unique_ptr<Grid> last;
    for (int pass = 0; pass < effort_.passes; ++pass) {
      last_ = last.get();
      auto fresh = std::make_unique<Grid>(rows_, columns_, two_, wanted_.before);
      grid_ = fresh.get();
      for (int r = 0; r < rows_; r += kRoot)
        for (int c = 0; c < columns_; c += kRoot) node(r, c, kRoot, nullptr);
      last = std::move(fresh);
    }
    last->copy(vectors, modes);
  }

 private:
  // The block that is looked at.
  struct Place {
    int r, c, side;
  };

  int64_t distance(const Place& p, const Motion& m) const {
    const int rows = 8 * std::min(p.side, rows_ - p.r), columns = 8 * std::min(p.side, columns_ - p.c);
    const int one = m.mode == kSecond;
    const uint8_t* a = quarters_[one]->at(8 * p.r, 8 * p.c, m.v[one]);
    const uint8_t* b = m.mode == kMean ? quarters_[1]->at(8 * p.r, 8 * p.c, m.v[1]) : nullptr;
    return loops_.rate(x_.at(8 * p.r, 8 * p.c), x_.stride, a, b, quarters_[one]->stride, rows,
                       columns, scale_);
  }

  // The nearest vector that the room around the reference has.
  Vector legal(const Place& p, Vector v) const {
    constexpr int room = static_cast<int>(Quarters::kMargin) - 1;
    const int rows = 8 * std::min(p.side, rows_ - p.r), columns = 8 * std::min(p.side, columns_ - p.c);
    const int y = std::clamp(v.y >> 2, -room - 8 * p.r, 8 * rows_ + room - 8 * p.r - rows);
    const int x = std::clamp(v.x >> 2, -room - 8 * p.c, 8 * columns_ + room - 8 * p.c - columns);
    return {static_cast<int16_t>(4 * y + (v.y & 3)), static_cast<int16_t>(4 * x + (v.x & 3))};
  }

  static int64_t difference_bits(Vector v, Vector from) {
    return bits_of(v.y - from.y) + bits_of(v.x - from.x);
  }

  // Goes from a vector of `found` to a cheaper one nearby, in smaller and smaller steps.
  void refine(const Place& p, int reference, Vector from, int step, int64_t bits, Found& found) const {
    static constexpr int8_t kAround[8][2] = {{-1, 0}, {0, -1}, {0, 1}, {1, 0},
                                             {-1, -1}, {-1, 1}, {1, -1}, {1, 1}};
    for (; step; step /= 2) {
      for (int moves = 0; moves < 16; ++moves) {
        const Vector centre = found.motion.v[reference];
        for (int i = 0; i < effort_.around; ++i) {
          Motion m = found.motion;
          const Vector next{static_cast<int16_t>(centre.y + step * kAround[i][0]),
                            static_cast<int16_t>(centre.x + step * kAround[i][1])};
          m.v[reference] = legal(p, next);
          if (!(m.v[reference] == next)) continue;
          try_motion(p, m, bits + difference_bits(next, from), found);
        }
        if (found.motion.v[reference] == centre) break;
      }
    }
  }

  void try_motion(const Place& p, const Motion& m, int64_t bits, Found& found) const {
    if (bits >= found.cost) return;
    const int64_t cost = bits + distance(p, m);
    if (cost < found.cost) found = {m, cost};
  }

  // Vectors worth trying, without repetitions.
  struct Starts {
    Vector list[24];
    int count = 0;
    void add(Vector v) {
      for (int i = 0; i < count; ++i)
        if (list[i] == v) return;
      if (count < 24) list[count++] = v;
    }
  };

  Found search_one(const Place& p, int reference, const Choices& choices, const Motion* above) const {
    Starts starts;
    const Vector from = grid_->predicted(p.r, p.c, p.side, reference);
    const int middle_r = p.r + p.side / 2, middle_c = p.c + p.side / 2;
    starts.add(legal(p, from));
    for (int i = 0; i < choices.count; ++i)
      if (choices.list[i].motion.uses(reference)) starts.add(legal(p, choices.list[i].motion.v[reference]));
    if (above && above->uses(reference)) starts.add(legal(p, above->v[reference]));
    for (int dr = -1; dr <= 1; ++dr)
      for (int dc = -1; dc <= 1; ++dc)
        if (p.side >= 4 || (!dr && !dc))
          starts.add(legal(p, far_[reference]->at(middle_r + 4 * dr, middle_c + 4 * dc)));
    if (last_) {
      const int places[4][2] = {{middle_r, middle_c}, {p.r, p.c}, {p.r, p.c + p.side},
                                {p.r + p.side, p.c}};
      for (const auto& place : places)
        if (const Motion* m = last_->at(place[0], place[1]); m && m->uses(reference))
          starts.add(legal(p, m->v[reference]));
    }
    const int64_t bits = (two_ ? 3 : 1) * kUnit;
    Found found{{}, INT64_MAX};
    for (int i = 0; i < starts.count; ++i) {
      Motion m{{{0, 0}, {0, 0}}, static_cast<uint8_t>(reference ? kSecond : kFirst)};
      m.v[reference] = starts.list[i];
      try_motion(p, m, bits + difference_bits(starts.list[i], from), found);
    }
    refine(p, reference, from, effort_.first, bits, found);
    return found;
  }

  Found search_mean(const Place& p, const Found& first, const Found& second) const {
    const Vector from[2] = {grid_->predicted(p.r, p.c, p.side, 0),
                            grid_->predicted(p.r, p.c, p.side, 1)};
    Found found{{}, INT64_MAX};
    const Motion start{{first.motion.v[0], second.motion.v[1]}, kMean};
    try_motion(p, start, 3 * kUnit + difference_bits(start.v[0], from[0]) +
                             difference_bits(start.v[1], from[1]), found);
    for (int round = 0; round < effort_.joint; ++round) {
      for (int i = 1; i >= 0; --i)
        refine(p, i, from[i], 2, 3 * kUnit + difference_bits(found.motion.v[!i], from[!i]), found);
    }
    return found;
  }

  Found leaf(const Place& p, const Motion* above) const {
    const Choices choices = grid_->choices(p.r, p.c, p.side);
    Found found = search_one(p, 0, choices, above);
    if (two_) {
      const Found second = search_one(p, 1, choices, above);
      const Found mean = search_mean(p, found, second);
      if (second.cost < found.cost) found = second;
      if (mean.cost < found.cost) found = mean;
    }
    for (int i = 0; i < choices.count; ++i) {
      const Motion& m = choices.list[i].motion;
      if ((m.uses(0) && !(legal(p, m.v[0]) == m.v[0])) ||
          (m.uses(1) && !(legal(p, m.v[1]) == m.v[1])))
        continue;
      try_motion(p, m, kUnit / 2 + kUnit * std::min(i + 1, kChoices - 1), found);
    }
    return found;
  }

  // Decides on a block; its cost, in 32nds of a bit.
  int64_t node(int r, int c, int side, const Motion* above) {
    const Place p{r, c, side};
    Found whole = leaf(p, above);
    const int64_t no = side > 1 ? kUnit / 2 : 0, yes = 3 * kUnit / 2;
    whole.cost += no;
    // Splitting costs four leaves at least; what it can gain is a part of the distance.
    if (side > 1 && whole.cost > yes + 6 * kUnit) {
      int64_t parts = yes;
      for (int i = 0; i < 4; ++i) {
        const int y = r + (i >> 1) * side / 2, x = c + (i & 1) * side / 2;
        if (y < rows_ && x < columns_) parts += node(y, x, side / 2, &whole.motion);
      }
      if (parts < whole.cost) return parts;
    }
    grid_->fill(r, c, side, log2_of(side), whole.motion, false);
    return whole.cost;
  }

  const Loops& loops_;
  const Wanted& wanted_;
  const Effort effort_;
  const int rows_, columns_;
  const Padded x_;
  const bool two_;
  const int scale_;
  Grid* grid_ = nullptr;
  const Grid* last_ = nullptr;  // of the pass before
  std::unique_ptr<Quarters> quarters_[2];
  std::unique_ptr<Far> far_[2];
};

}  // namespace

void search(const Loops& loops, const Wanted& wanted, Vector* vectors, uint8_t* modes) {
  auto search = std::make_unique<Search>(loops, wanted);
  search->run(vectors, modes);
}

}  // namespace latentpack::motion
