// What a leaf of a motion field can repeat and is predicted from, the same for the search and for the
// coder: the mirror of Grid in motion_coder_ref.py.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "motion.h"

namespace latentpack::motion {

constexpr int kRoot = 8;  // blocks
constexpr int kRootLevel = 3;
constexpr int kWhole = 4;  // the level of a picture that is one leaf
constexpr int kChoices = 5;

// The motion of a leaf; vectors of references that it does not use are 0.
struct Motion {
  Vector v[2];
  uint8_t mode;

  bool uses(int reference) const { return mode == kMean || mode == reference; }
  bool operator==(const Motion& other) const {
    return mode == other.mode && v[0] == other.v[0] && v[1] == other.v[1];
  }
};

inline Motion motion_of(const FieldView& field, size_t i) {
  Motion motion{{field.vectors[i], {0, 0}}, kFirst};
  if (!field.modes) return motion;
  motion.mode = field.modes[i];
  if (motion.uses(1)) motion.v[1] = field.vectors[field.rows * field.columns + i];
  if (!motion.uses(0)) motion.v[0] = {0, 0};
  return motion;
}

struct Choice {
  Motion motion;
  int votes, source;
};

struct Choices {
  Choice list[kChoices];
  int count = 0;

  void add(const Motion& motion, int source) {
    for (int i = 0; i < count; ++i) {
      if (list[i].motion == motion) {
        ++list[i].votes;
        return;
      }
    }
    if (count < kChoices) list[count++] = {motion, 1, source};
  }
  // Those with more votes first, others in their order.
  void sort() {
    for (int i = 1; i < count; ++i)
      for (int j = i; j && list[j].votes > list[j - 1].votes; --j) std::swap(list[j], list[j - 1]);
  }
};

// Blocks of a picture, those that are known so far among them.
class Grid {
 public:
  Grid(int rows, int columns, bool two, const FieldView& before)
      : rows(rows), columns(columns), two(two), before_(before),
        cells_(static_cast<size_t>(rows) * static_cast<size_t>(columns)) {}

  const int rows, columns;
  const bool two;

  void fill(int r, int c, int side, int level, const Motion& motion, bool merged) {
    const Cell cell{motion, static_cast<int8_t>(level), static_cast<int8_t>(1 + merged)};
    for (int i = r; i < std::min(r + side, rows); ++i) {
      Cell* row = cells_.data() + index(i, 0);
      std::fill(row + c, row + std::min(c + side, columns), cell);
    }
  }

  // Null where it is not known yet.
  const Motion* at(int r, int c) const {
    const Cell* cell = known(r, c);
    return cell ? &cell->motion : nullptr;
  }
  int level(int r, int c) const {  // of the leaf, or -1
    const Cell* cell = known(r, c);
    return cell ? cell->level : -1;
  }
  int merged(int r, int c) const {  // 0 unknown, 1 no, 2 yes
    const Cell* cell = known(r, c);
    return cell ? cell->merged : 0;
  }

  // Left, above, above to the right, below to the left, above to the left.
  const Motion* around(int r, int c, int side, int which) const {
    switch (which) {
      case 0: return at(std::min(r + side, rows) - 1, c - 1);
      case 1: return at(r - 1, std::min(c + side, columns) - 1);
      case 2: return at(r - 1, c + side);
      case 3: return at(r + side, c - 1);
      default: return at(r - 1, c - 1);
    }
  }

  bool temporal() const { return before_.vectors; }
  bool temporal(int r, int c, int side, Motion& motion) const {
    if (!before_.vectors) return false;
    motion = motion_of(before_, index(std::min(r + side / 2, rows - 1),
                                      std::min(c + side / 2, columns - 1)));
    return true;
  }

  Choices choices(int r, int c, int side) const {
    Choices found;
    Motion before;
    const auto add = [&](const Motion* motion, int source) {
      if (motion) found.add(*motion, source);
    };
    add(around(r, c, side, 0), 0);
    add(around(r, c, side, 1), 1);
    add(temporal(r, c, side, before) ? &before : nullptr, 2);
    for (int i = 2; i < 5; ++i) add(around(r, c, side, i), i + 1);
    found.add({{{0, 0}, {0, 0}}, two ? uint8_t{kMean} : uint8_t{kFirst}}, 6);
    found.sort();
    return found;
  }

  Vector predicted(int r, int c, int side, int reference) const {
    Vector found[4];
    int count = 0;
    for (int i = 0; i < 3; ++i) {
      const Motion* motion = around(r, c, side, i);
      if (motion && motion->uses(reference)) found[count++] = motion->v[reference];
    }
    Motion before;
    if (temporal(r, c, side, before) && before.uses(reference)) found[count++] = before.v[reference];
    if (!count) return {0, 0};
    if (count < 3) return found[0];
    return {median(found[0].y, found[1].y, found[2].y), median(found[0].x, found[1].x, found[2].x)};
  }

  int spread(int r, int c, int side, int reference) const {
    const Motion *a = around(r, c, side, 0), *b = around(r, c, side, 1);
    if (!a || !b || !a->uses(reference) || !b->uses(reference)) return 5;
    const int distance = std::abs(a->v[reference].y - b->v[reference].y) +
                         std::abs(a->v[reference].x - b->v[reference].x);
    return (distance > 0) + (distance > 2) + (distance > 6) + (distance > 16);
  }

  int calm(int r, int c, int side) const {
    if (!before_.vectors) return 0;
    const Motion first = motion_of(before_, index(r, c));
    for (int i = r; i < std::min(r + side, rows); ++i)
      for (int j = c; j < std::min(c + side, columns); ++j)
        if (!(motion_of(before_, index(i, j)) == first)) return 2;
    return 1;
  }

  // All blocks, which must be known.
  void copy(Vector* vectors, uint8_t* modes) const {
    for (size_t i = 0; i < cells_.size(); ++i) {
      vectors[i] = cells_[i].motion.v[0];
      if (!two) continue;
      vectors[cells_.size() + i] = cells_[i].motion.v[1];
      modes[i] = cells_[i].motion.mode;
    }
  }

 private:
  struct Cell {
    Motion motion;
    int8_t level = -1, merged = 0;
  };

  static int16_t median(int16_t a, int16_t b, int16_t c) {
    return std::max(std::min(a, b), std::min(std::max(a, b), c));
  }
  size_t index(int r, int c) const {
    return static_cast<size_t>(r) * static_cast<size_t>(columns) + static_cast<size_t>(c);
  }
  const Cell* known(int r, int c) const {
    if (r < 0 || c < 0 || r >= rows || c >= columns) return nullptr;
    const Cell& cell = cells_[index(r, c)];
    return cell.merged ? &cell : nullptr;
  }

  const FieldView before_;
  std::vector<Cell> cells_;
};

}  // namespace latentpack::motion
