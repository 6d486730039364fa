// Motion fields: prediction and search. What they predict is defined in motion_ref.py.
#pragma once

#include <cstddef>
#include <cstdint>

#include "rans.h"

namespace latentpack::motion {

constexpr int kBlock = 8;
constexpr int kDepth = 14;
constexpr int kStrip = 64;        // the widest that a filter makes at once
constexpr int kMaxTaps = 8;
constexpr size_t kOverrun = 64;   // elements behind the taps of a row that filters may read

enum Mode : uint8_t { kFirst, kSecond, kMean };

struct Vector {
  int16_t y, x;
  bool operator==(const Vector& other) const { return y == other.y && x == other.x; }
};

extern const int16_t kLumaTaps[4][8];
extern const int16_t kChromaTaps[8][4];
extern const int16_t kCellTaps[32][2];

// Taps of one direction each; null where the position is a whole one.
struct Filter {
  int taps;
  const int16_t *down, *across;
};

// The loops of one instruction set. A filter makes rows x columns of samples, at most 8 x kStrip,
// of those around `from` (which stands at the whole position of the first), rows to kStrip apart;
// behind `columns` it may write up to kStrip. Integers are moved up by `up` bits.
struct Loops {
  void (*bytes)(const uint8_t* from, ptrdiff_t stride, int up, const Filter&, int rows, int columns,
                int16_t* to);
  void (*words)(const int16_t* from, ptrdiff_t stride, int up, const Filter&, int rows, int columns,
                int16_t* to);
  void (*floats)(const float* from, ptrdiff_t stride, int up, const Filter&, int rows, int columns,
                 float* to);
  // Samples of 14 bits to 8 bits, rounded.
  void (*to_bytes)(const int16_t* from, int n, uint8_t* to);
  // What it costs to leave or to code the coefficients of 8 x 8 Hadamard transforms of x less the
  // prediction (`a`, or the mean of it and `b` if that is not null), in 32nds of a bit: see Rate in
  // motion_loops.h. `scale` is 2^15 over the coefficient that is worth coding. Sides are multiples
  // of 8.
  uint32_t (*rate)(const uint8_t* x, ptrdiff_t x_stride, const uint8_t* a, const uint8_t* b,
                   ptrdiff_t stride, int rows, int columns, int scale);
  // The sum of absolute differences, likewise.
  uint32_t (*sad)(const uint8_t* x, ptrdiff_t x_stride, const uint8_t* a, const uint8_t* b,
                  ptrdiff_t stride, int rows, int columns);
};
extern const Loops kScalarLoops;
#if LATENTPACK_X86
extern const Loops kAvx2Loops, kAvx512Loops;
#endif
const Loops& loops_for(Isa isa);

// One plane of the references and of the prediction. Vectors [references][h][w] and modes [h][w]
// (null with one reference) are those of a picture whose planes are `scale` times as large.
template <typename T>
struct Plane {
  const T* references[2];
  size_t rows, columns;
  int scale;
};

struct FieldView {
  const Vector* vectors;
  const uint8_t* modes;
  size_t rows, columns;  // blocks
};

// Samples of `bits` bits to samples of 14 bits.
void warp(const Loops&, const Plane<uint8_t>&, const FieldView&, int bits, int16_t* to);
void warp(const Loops&, const Plane<int16_t>&, const FieldView&, int bits, int16_t* to);
void warp(const Loops&, const Plane<float>&, const FieldView&, int bits, float* to);

// Luma of 8 bits, and how to search: see motion.py.
struct Wanted {
  const uint8_t* current;
  const uint8_t* references[2];  // the second null with one
  size_t rows, columns;
  FieldView before;              // the field of the picture before, or null vectors
  double lmbda;
  int effort;
};
void search(const Loops&, const Wanted&, Vector* vectors, uint8_t* modes);

}  // namespace latentpack::motion
