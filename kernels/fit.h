// The decoder of fitted pictures and frames. Everything is defined in fit_ref.py; the same for machines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "rans.h"

namespace latentpack::fit {

constexpr int kGrids = 7;
constexpr int kLimit = 511;
constexpr int kScales = 28;
constexpr int kFractions = 9;
constexpr int kCross = 5;
constexpr int kMaxTaps = 14;
constexpr int kTemporal = 5;
constexpr int kNear = 8;   // neighbours that grids in passes have
constexpr int kPasses = 4;
constexpr int kMaxInputs = 20;  // with the zero that makes them even
constexpr int kMaxHidden = 32;
constexpr int kTile = 8;        // hidden units that are summed at once
constexpr int kMaxColours = 3;
constexpr int kPredictionBits = 14;
constexpr int kMaxPlanes = kGrids + kMaxColours;
constexpr size_t kPad = 32;     // elements behind a row that loops may touch

inline size_t rows_of(size_t height, int k) { return (height + (size_t{1} << k) - 1) >> k; }
// Elements of all grids together.
size_t grid_elements(size_t height, size_t width);

// The context model. Weights stand in pairs, the second in the upper half of 32 bits.
struct Model {
  int inputs, hidden, pairs;
  int32_t w1[kMaxHidden * kMaxInputs / 2];  // [tile][pair of inputs][unit of the tile]
  int32_t w2[kMaxHidden * kMaxHidden / 2];  // the same, of hidden units
  int32_t w3[2][kMaxHidden / 2];
  int32_t skip[2][kMaxInputs / 2];
  int32_t b1[kGrids][kMaxHidden], b2[kMaxHidden], b3[kGrids][2];

  // Of arrays of a model of so many inputs.
  static size_t numbers(int inputs, int hidden);
  // From the arrays of fit_ref.Context, one after another; `columns` are its inputs that there are,
  // and input `one` is 1 where it is not negative.
  Model(int inputs, int hidden, const int32_t* arrays, const std::vector<int>& columns, int one);
};
Model causal_model(int taps, int hidden, const int32_t* arrays);
// Those of the passes, of frames with a reference or without.
std::vector<Model> pass_models(int temporal, int hidden, const int32_t* arrays);

// What makes pixels; a view of the arrays of fit_ref.Synthesis, one after another.
struct Net {
  int width, colours, extra;  // extra: planes of the prediction, 0 or colours
  const float *up, *w1, *b1, *w2, *b2, *skip, *k1, *c1, *k2, *c2;

  static size_t numbers(int width, int colours, int extra);
  Net(int width, int colours, int extra, const float* arrays);
};

// The first layer of a Net for the planes that are not all zeros; w1 [width, count], skip
// [colours, count].
struct Layer {
  int count;
  float units[kMaxPlanes];  // what the planes are multiplied by
  std::vector<float> w1, skip;
};

// A wave's latents y = mean + sign * symbol, the symbol by the row `index` of the tables.
struct Wave {
  int16_t *mean, *sign;
  uint8_t* index;
};

// The loops of one instruction set. They may read and write kPad elements behind n.
struct Loops {
  // Means, signs and rows of n positions of grid k, whose inputs stand in arrays.
  void (*distribution)(const Model&, int k, const int16_t* const* inputs, size_t n, Wave);
  // Four rows to the one that the kernel makes of them.
  void (*up_rows)(const float* const* rows, const float* kernel, size_t n, float* out);
  // A row, of which two elements before and behind are there, to one of twice the length.
  void (*up_columns)(const float* row, const float* kernel, size_t n, float* out);
  // Rows of the layer's planes to a row of a for each colour.
  void (*pixels)(const Net&, const Layer&, const float* const* u, size_t n, float* const* a);
  // One of the two convolutions: x + conv(x) from rows [colour][3], with one element before and
  // behind; relu of it for the first.
  void (*around)(const Net&, bool first, const float* const* rows, size_t n, float* const* out);
  // n means of 2 x 2 elements of two rows.
  void (*means)(const float* above, const float* below, size_t n, float* out);
  // Integers of a row, for the largest one: bytes for 255, otherwise int16.
  void (*to_integers)(const float* x_hat, size_t n, int top, void* samples);
};
extern const Loops kScalarLoops;
#if LATENTPACK_X86
extern const Loops kAvx2Loops, kAvx512Loops;
#endif
const Loops& loops_for(Isa isa);

// Grids are int16, finest first, one after another; bit k of `coded` says that grid k is.
// Symbols and rows of the coded grids, in order.
void symbols(const Model&, Isa, const int16_t* grids, size_t height, size_t width, unsigned coded,
             int threads, int16_t* symbols, uint8_t* index);
// A latent was outside of kLimit; beyond what rANS tells.
constexpr int kOutside = 100;
// A Status, or kOutside. The grids become those of the stream.
int decode(const Model&, Prepared&, Isa, Decoding&, const uint8_t* words, size_t bytes,
           size_t height, size_t width, unsigned coded, int16_t* grids);
// The same in passes, with the grids of a reference; nullptr where the models take none.
void frame_symbols(const std::vector<Model>&, Isa, const int16_t* grids, const int16_t* reference,
                   size_t height, size_t width, unsigned coded, int threads, int16_t* symbols,
                   uint8_t* index);
int frame_decode(const std::vector<Model>&, Prepared&, Isa, Decoding&, const uint8_t* words,
                 size_t bytes, const int16_t* reference, size_t height, size_t width,
                 unsigned coded, int16_t* grids);

// What is made of grids: planes one after another, bytes of 8 bits, otherwise int16.
struct Picture {
  size_t height, width;  // of the first plane
  bool half;             // the others are means of 2 x 2 pixels, and grids of even sizes
  int bits;
  const int16_t* prediction;  // the same planes; nullptr where the net takes none
  void* samples;

  // Of the grids.
  size_t whole_height() const { return half ? (height + 1) / 2 * 2 : height; }
  size_t whole_width() const { return half ? (width + 1) / 2 * 2 : width; }
  // Of plane c.
  size_t rows(int c) const { return half && c ? (height + 1) / 2 : height; }
  size_t columns(int c) const { return half && c ? (width + 1) / 2 : width; }
  size_t start(int c) const {
    size_t at = 0;
    for (int before = 0; before < c; ++before) at += rows(before) * columns(before);
    return at;
  }
};
void synthesise(const Net&, Isa, const int16_t* grids, unsigned coded, const Picture&, int threads);

}  // namespace latentpack::fit
