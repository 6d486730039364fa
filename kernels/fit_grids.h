// Grids of latents with zeros around them.
#pragma once

#include <algorithm>
#include <vector>

#include "fit.h"

namespace latentpack::fit {

// A grid with a border of zeros, one wide; loops may read kPad elements behind a row.
struct Bordered {
  size_t rows = 0, columns = 0, stride = 0;
  std::vector<int16_t> cells;

  Bordered(size_t rows, size_t columns)
      : rows(rows), columns(columns), stride(columns + 2), cells((rows + 2) * stride + kPad) {}
  int16_t* row(size_t r) { return cells.data() + (r + 1) * stride + 1; }
  const int16_t* row(size_t r) const { return cells.data() + (r + 1) * stride + 1; }
  // A row from -1 to `rows`, and a column of it.
  const int16_t* at(ptrdiff_t r, ptrdiff_t c) const {
    return cells.data() + (r + 1) * static_cast<ptrdiff_t>(stride) + 1 + c;
  }
  // Takes over rows one after another; returns where they end.
  const int16_t* take(const int16_t* from) {
    for (size_t r = 0; r < rows; ++r, from += columns) std::copy(from, from + columns, row(r));
    return from;
  }
  int16_t* give(int16_t* to) const {
    for (size_t r = 0; r < rows; ++r) to = std::copy(row(r), row(r) + columns, to);
    return to;
  }
};

inline std::vector<Bordered> empty_grids(size_t height, size_t width) {
  std::vector<Bordered> grids;
  for (int k = 0; k < kGrids; ++k) grids.emplace_back(rows_of(height, k), rows_of(width, k));
  return grids;
}

// Grid k, or nullptr where there is none.
inline const Bordered* grid_at(const std::vector<Bordered>& grids, int k) {
  return k < static_cast<int>(grids.size()) ? &grids[static_cast<size_t>(k)] : nullptr;
}

}  // namespace latentpack::fit
