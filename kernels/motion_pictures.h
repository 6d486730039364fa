// What the search looks at: references at every quarter of a sample, and small pictures.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "motion.h"

namespace latentpack::motion {

// A picture with room around it, filled with its edge.
class Padded {
 public:
  Padded(const uint8_t* picture, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t inner_rows,
         ptrdiff_t inner_columns, ptrdiff_t margin)
      : stride((inner_columns + 2 * margin + 63) / 64 * 64 + 64), margin(margin),
        cells_(static_cast<size_t>((inner_rows + 2 * margin + 1) * stride)) {
    for (ptrdiff_t r = -margin; r < inner_rows + margin; ++r) {
      const uint8_t* from = picture + std::clamp<ptrdiff_t>(r, 0, rows - 1) * columns;
      uint8_t* to = at(r, 0);
      std::fill(to - margin, to, from[0]);
      std::copy(from, from + columns, to);
      std::fill(to + columns, to + inner_columns + margin, from[columns - 1]);
    }
  }
  uint8_t* at(ptrdiff_t r, ptrdiff_t c) {
    return cells_.data() + (r + margin) * stride + c + margin;
  }
  const uint8_t* at(ptrdiff_t r, ptrdiff_t c) const { return const_cast<Padded*>(this)->at(r, c); }

  const ptrdiff_t stride, margin;

 private:
  std::vector<uint8_t> cells_;
};

// A reference at all 16 quarters of a sample, 8 bits each.
class Quarters {
 public:
  static constexpr ptrdiff_t kMargin = 80;  // more than the largest leaf, so that it can lie outside

  Quarters(const Loops& loops, const uint8_t* picture, ptrdiff_t rows, ptrdiff_t columns,
           ptrdiff_t inner_rows, ptrdiff_t inner_columns)
      : stride((inner_columns + 2 * kMargin + kStrip - 1) / kStrip * kStrip),
        rows_(inner_rows + 2 * kMargin), cells_(static_cast<size_t>(16 * rows_ * stride)) {
    const Padded whole(picture, rows, columns, inner_rows, inner_columns, kMargin + kMaxTaps);
    int16_t strip[kBlock * kStrip];
    for (int phase = 0; phase < 16; ++phase) {
      const Filter filter{8, phase / 4 ? kLumaTaps[phase / 4] : nullptr,
                          phase % 4 ? kLumaTaps[phase % 4] : nullptr};
      for (ptrdiff_t r = 0; r < rows_; r += kBlock) {
        for (ptrdiff_t c = 0; c < stride; c += kStrip) {
          const int columns_here =
              static_cast<int>(std::min<ptrdiff_t>(kStrip, inner_columns + 2 * kMargin - c));
          if (columns_here <= 0) break;
          loops.bytes(whole.at(r - kMargin, c - kMargin), whole.stride, 6, filter, kBlock,
                      columns_here, strip);
          for (int i = 0; i < kBlock; ++i)
            loops.to_bytes(strip + i * kStrip, columns_here,
                           cells_.data() + (phase * rows_ + r + i) * stride + c);
        }
      }
    }
  }

  // What a vector points at from a position.
  const uint8_t* at(ptrdiff_t r, ptrdiff_t c, Vector v) const {
    const int phase = (v.y & 3) * 4 + (v.x & 3);
    return cells_.data() + (phase * rows_ + r + (v.y >> 2) + kMargin) * stride + c + (v.x >> 2) +
           kMargin;
  }

  const ptrdiff_t stride;

 private:
  const ptrdiff_t rows_;
  std::vector<uint8_t> cells_;
};

// Means of 4 x 4 samples.
inline std::vector<uint8_t> quarter_size(const Padded& from, ptrdiff_t rows, ptrdiff_t columns) {
  std::vector<uint8_t> to(static_cast<size_t>(rows * columns));
  for (ptrdiff_t r = 0; r < rows; ++r) {
    for (ptrdiff_t c = 0; c < columns; ++c) {
      int sum = 8;
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) sum += *from.at(4 * r + i, 4 * c + j);
      to[static_cast<size_t>(r * columns + c)] = static_cast<uint8_t>(sum >> 4);
    }
  }
  return to;
}

}  // namespace latentpack::motion
