// Prediction: runs of blocks with one vector become strips that a filter makes at once.
#include "motion.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace latentpack::motion {

const int16_t kLumaTaps[4][8] = {
    {0, 0, 0, 64, 0, 0, 0, 0},
    {-1, 3, -9, 57, 18, -6, 2, 0},
    {-1, 4, -11, 40, 40, -11, 4, -1},
    {0, 2, -6, 18, 57, -9, 3, -1},
};
const int16_t kChromaTaps[8][4] = {
    {0, 64, 0, 0},      {-2, 59, 8, -1},   {-4, 53, 18, -3}, {-5, 46, 27, -4},
    {-5, 37, 37, -5},   {-4, 27, 46, -5},  {-3, 18, 53, -4}, {-1, 8, 59, -2},
};
const int16_t kCellTaps[32][2] = {
    {64, 0},  {62, 2},  {60, 4},  {58, 6},  {56, 8},  {54, 10}, {52, 12}, {50, 14},
    {48, 16}, {46, 18}, {44, 20}, {42, 22}, {40, 24}, {38, 26}, {36, 28}, {34, 30},
    {32, 32}, {30, 34}, {28, 36}, {26, 38}, {24, 40}, {22, 42}, {20, 44}, {18, 46},
    {16, 48}, {14, 50}, {12, 52}, {10, 54}, {8, 56},  {6, 58},  {4, 60},  {2, 62},
};

const Loops& loops_for(Isa isa) {
#if LATENTPACK_X86
  if (isa == Isa::kAvx512) return kAvx512Loops;
  if (isa == Isa::kAvx2) return kAvx2Loops;
#endif
  (void)isa;
  return kScalarLoops;
}

namespace {

// How a vector reads in a plane of this scale: log2 of parts of a sample, and the taps.
struct Scale {
  int parts_log2, taps;
  const int16_t* table;

  explicit Scale(int scale)
      : parts_log2(scale == 1 ? 2 : scale == 2 ? 3 : 5), taps(scale == 1 ? 8 : scale == 2 ? 4 : 2),
        table(scale == 1 ? kLumaTaps[0] : scale == 2 ? kChromaTaps[0] : kCellTaps[0]) {}
  const int16_t* at(int vector) const {
    const int fraction = vector & ((1 << parts_log2) - 1);
    return fraction ? table + fraction * taps : nullptr;
  }
};

void run(const Loops& loops, const uint8_t* from, ptrdiff_t stride, int up, const Filter& filter,
         int rows, int columns, int16_t* to) {
  loops.bytes(from, stride, up, filter, rows, columns, to);
}
void run(const Loops& loops, const int16_t* from, ptrdiff_t stride, int up, const Filter& filter,
         int rows, int columns, int16_t* to) {
  loops.words(from, stride, up, filter, rows, columns, to);
}
void run(const Loops& loops, const float* from, ptrdiff_t stride, int up, const Filter& filter,
         int rows, int columns, float* to) {
  loops.floats(from, stride, up, filter, rows, columns, to);
}

// Makes strips of one reference.
template <typename T, typename Out>
class Mover {
 public:
  Mover(const Loops& loops, const T* plane, size_t rows, size_t columns, int scale, int up)
      : loops_(loops), plane_(plane), rows_(static_cast<ptrdiff_t>(rows)),
        columns_(static_cast<ptrdiff_t>(columns)), scale_(scale), up_(up) {}

  void make(size_t row, size_t column, Vector v, int rows, int columns, Out* to) {
    const Filter filter{scale_.taps, scale_.at(v.y), scale_.at(v.x)};
    const ptrdiff_t y = static_cast<ptrdiff_t>(row) + (v.y >> scale_.parts_log2);
    const ptrdiff_t x = static_cast<ptrdiff_t>(column) + (v.x >> scale_.parts_log2);
    const int before = scale_.taps / 2 - 1, after = scale_.taps / 2;
    const ptrdiff_t touched = (y + rows + after - 1) * columns_ + x + columns + after +
                              static_cast<ptrdiff_t>(kOverrun);
    if (y >= before && x >= before && y + rows + after <= rows_ && x + columns + after <= columns_ &&
        touched <= rows_ * columns_) {
      run(loops_, plane_ + y * columns_ + x, columns_, up_, filter, rows, columns, to);
      return;
    }
    // Copied with its surroundings; the edges repeat.
    for (int r = -before; r < rows + after; ++r) {
      const T* from = plane_ + std::clamp<ptrdiff_t>(y + r, 0, rows_ - 1) * columns_;
      T* at = copy_ + (r + before) * kCopied;
      const ptrdiff_t first = x - before, count = columns + before + after;
      const ptrdiff_t left = std::clamp<ptrdiff_t>(-first, 0, count);
      const ptrdiff_t right = std::clamp<ptrdiff_t>(columns_ - first, left, count);
      std::fill(at, at + left, from[0]);
      if (left < right) std::memcpy(at + left, from + first + left, (right - left) * sizeof(T));
      std::fill(at + right, at + count, from[columns_ - 1]);
    }
    run(loops_, copy_ + before * kCopied + before, kCopied, up_, filter, rows, columns, to);
  }

 private:
  static constexpr ptrdiff_t kCopied = kStrip + kMaxTaps + kOverrun;

  const Loops& loops_;
  const T* plane_;
  const ptrdiff_t rows_, columns_;
  const Scale scale_;
  const int up_;
  T copy_[(kBlock + kMaxTaps) * kCopied] = {};
};

// The mean where there are two, the clamp of integers, and the way into the plane.
void finish(const int16_t* a, const int16_t* b, int n, int16_t* to) {
  constexpr int most = (1 << kDepth) - 1;
  for (int i = 0; i < n; ++i) {
    const int p = b ? (a[i] + b[i] + 1) >> 1 : a[i];
    to[i] = static_cast<int16_t>(p < 0 ? 0 : p > most ? most : p);
  }
}
void finish(const float* a, const float* b, int n, float* to) {
  for (int i = 0; i < n; ++i) to[i] = b ? (a[i] + b[i]) * 0.5f : a[i];
}

template <typename T, typename Out>
void warp_plane(const Loops& loops, const Plane<T>& plane, const FieldView& field, int bits,
                Out* to) {
  const size_t side = static_cast<size_t>(kBlock / plane.scale), most = kStrip / side;
  const int up = kDepth - bits;
  const bool two = field.modes;
  Mover<T, Out> first(loops, plane.references[0], plane.rows, plane.columns, plane.scale, up);
  Mover<T, Out> second(loops, plane.references[two], plane.rows, plane.columns, plane.scale, up);
  Out a[kBlock * kStrip], b[kBlock * kStrip];
  for (size_t r = 0; r < field.rows; ++r) {
    const Vector* v0 = field.vectors + r * field.columns;
    const Vector* v1 = two ? v0 + field.rows * field.columns : v0;
    const uint8_t* modes = two ? field.modes + r * field.columns : nullptr;
    const int rows = static_cast<int>(std::min(side, plane.rows - r * side));
    for (size_t c = 0, end; c < field.columns; c = end) {
      const int mode = two ? modes[c] : int{kFirst};
      const auto same = [&](size_t other) {
        return (!two || modes[other] == mode) && (mode == kSecond || v0[other] == v0[c]) &&
               (mode == kFirst || v1[other] == v1[c]);
      };
      for (end = c + 1; end < field.columns && end - c < most && same(end);) ++end;
      const int columns = static_cast<int>(std::min(end * side, plane.columns) - c * side);
      if (mode != kSecond) first.make(r * side, c * side, v0[c], rows, columns, a);
      if (mode != kFirst) second.make(r * side, c * side, v1[c], rows, columns, b);
      for (int i = 0; i < rows; ++i) {
        const Out *p = a + i * kStrip, *q = b + i * kStrip;
        finish(mode == kSecond ? q : p, mode == kMean ? q : nullptr, columns,
               to + (r * side + static_cast<size_t>(i)) * plane.columns + c * side);
      }
    }
  }
}

}  // namespace

void warp(const Loops& loops, const Plane<uint8_t>& plane, const FieldView& field, int bits,
          int16_t* to) {
  warp_plane(loops, plane, field, bits, to);
}
void warp(const Loops& loops, const Plane<int16_t>& plane, const FieldView& field, int bits,
          int16_t* to) {
  warp_plane(loops, plane, field, bits, to);
}
void warp(const Loops& loops, const Plane<float>& plane, const FieldView& field, int bits,
          float* to) {
  warp_plane(loops, plane, field, bits, to);
}

}  // namespace latentpack::motion
