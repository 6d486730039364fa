// What a leaf of a motion field can repeat and is predicted from: the same for the search and for
// the coder. A field is a quadtree: leaves are squares of 8, 4, 2 or 1 blocks, roots of 8, and what
// of them lies outside of the picture is not there.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "motion.h"

namespace latentpack::motion {

constexpr int kRoot = 8;         // blocks
constexpr int kCandidates = 5;   // that a leaf may repeat

// The motion of a leaf.
struct Motion {
  Vector v[2];
  uint8_t mode;

  bool uses(int reference) const { return mode == kMean || mode == reference; }
  bool operator==(const Motion& other) const {
    return mode == other.mode && (!uses(0) || v[0] == other.v[0]) &&
           (!uses(1) || v[1] == other.v[1]);
  }
};

struct Choices {
  Motion list[kCandidates];
  int count = 0;

  void add(const Motion& motion) {
    if (count == kCandidates) return;
    for (int i = 0; i < count; ++i)
      if (list[i] == motion) return;
    list[count++] = motion;
  }
};

// Blocks of a picture, those that are known so far among them.
class Grid {
 public:
  Grid(int rows, int columns, bool two, const Vector* before, const uint8_t* modes_before)
      : rows(rows), columns(columns), two(two), before_(before), modes_before_(modes_before),
        cells_(static_cast<size_t>(rows * columns)), depth_(static_cast<size_t>(rows * columns)) {}

  const int rows, columns;
  const bool two;

  Motion& at(int r, int c) { return cells_[index(r, c)]; }
  const Motion& at(int r, int c) const { return cells_[index(r, c)]; }
  // 0 where it is not known yet, else 1 + log2 of the leaf's side.
  int depth(int r, int c) const {
    return r < 0 || c < 0 || r >= rows || c >= columns ? 0 : depth_[index(r, c)];
  }

  void fill(int r, int c, int side, const Motion& motion, int depth) {
    for (int i = r; i < std::min(r + side, rows); ++i) {
      for (int j = c; j < std::min(c + side, columns); ++j) {
        cells_[index(i, j)] = motion;
        depth_[index(i, j)] = static_cast<uint8_t>(depth);
      }
    }
  }

  Motion temporal(int r, int c) const {
    const size_t i = index(std::min(r, rows - 1), std::min(c, columns - 1));
    const size_t other = two ? i + static_cast<size_t>(rows) * static_cast<size_t>(columns) : i;
    return {{before_[i], before_[other]}, two ? modes_before_[i] : uint8_t{kFirst}};
  }

  Choices choices(int r, int c, int side) const {
    Choices found;
    const int places[5][2] = {{std::min(r + side, rows) - 1, c - 1},
                              {r - 1, std::min(c + side, columns) - 1},
                              {r - 1, c + side},
                              {r + side, c - 1},
                              {r - 1, c - 1}};
    for (int i = 0; i < 5; ++i) {
      if (i == 4 && found.count == kCandidates - 1) break;
      if (depth(places[i][0], places[i][1])) found.add(at(places[i][0], places[i][1]));
      if (i == 1 && before_) found.add(temporal(r + side / 2, c + side / 2));
    }
    found.add({{{0, 0}, {0, 0}}, two ? uint8_t{kMean} : uint8_t{kFirst}});
    return found;
  }

  // What a vector to a reference is coded relative to: the median of those around, by component.
  Vector predicted(int r, int c, int side, int reference) const {
    const int places[3][2] = {{std::min(r + side, rows) - 1, c - 1},
                              {r - 1, std::min(c + side, columns) - 1},
                              {r - 1, c + side}};
    Vector found[3];
    int count = 0;
    for (const auto& place : places)
      if (depth(place[0], place[1]) && at(place[0], place[1]).uses(reference))
        found[count++] = at(place[0], place[1]).v[reference];
    if (before_ && count < 3) {
      const Motion old = temporal(r + side / 2, c + side / 2);
      if (old.uses(reference)) found[count++] = old.v[reference];
    }
    if (!count) return {0, 0};
    if (count < 3) return found[0];
    return {median(found[0].y, found[1].y, found[2].y), median(found[0].x, found[1].x, found[2].x)};
  }

 private:
  static int16_t median(int16_t a, int16_t b, int16_t c) {
    return std::max(std::min(a, b), std::min(std::max(a, b), c));
  }
  size_t index(int r, int c) const {
    return static_cast<size_t>(r) * static_cast<size_t>(columns) + static_cast<size_t>(c);
  }

  const Vector* before_;
  const uint8_t* modes_before_;
  std::vector<Motion> cells_;
  std::vector<uint8_t> depth_;
};

}  // namespace latentpack::motion
