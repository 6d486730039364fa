// Codes of residual quantizers with an integer prior: see codes_ref.py, which defines every bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "rans.h"  // Isa

namespace latentpack::codes {

constexpr int kLimit = 2047;
constexpr int kUnits = 16;        // widths of layers are multiples of this
constexpr int kMaxBits = 12;      // of a code
constexpr int kMaxWidth = 1024;   // of a layer, or of the embeddings
constexpr int kMaxBooks = 64;
constexpr int kMaxPast = 8;
constexpr int kLogitShift = 7;
constexpr int kPowers = 32;  // in an octave of frequencies

// Layers of one kind. Weights stand as [layer][pair of inputs][unit][2].
struct Dense {
  int in = 0, out = 0;
  std::vector<int8_t> weight;
  std::vector<int32_t> bias, multiplier, shift;

  const int8_t* weights(int layer) const {
    return weight.data() + static_cast<size_t>(layer) * in * out;
  }
};

// What the constructor takes, [layer][unit][input].
struct DenseView {
  int layers, in, out;
  const int8_t* weight;
  const int32_t *bias, *multiplier, *shift;
};

struct Model {
  int books = 0, past_layers = 0;
  int dim = 0, context = 0, hidden_units = 0, feature_units = 0;
  std::vector<int> bits;       // of the codes of each codebook
  std::vector<size_t> starts;  // of each codebook among all codes
  std::vector<int8_t> embedding;
  Dense first, past, hidden, features;
  // For each codebook as of a layer, from padded_starts[q] * feature_units on, its units padded to a
  // multiple of kUnits.
  std::vector<int8_t> weight;
  std::vector<size_t> padded_starts;
  std::vector<int32_t> bias;
};

Dense make_dense(const DenseView&);
// Fills weight and bias of a model with bits and starts from [code][feature] and [code].
void take_head(Model&, const int8_t* weight, const int32_t* bias);

// int64 [k, count] to their bytes. Codes are below their codebook's size. Throws std::bad_alloc.
std::vector<uint8_t> encode(Isa, const Model&, const int64_t* codes, int k, size_t count);
// The mirror; false if the bytes are not those of an encoder.
bool decode(Isa, const Model&, const uint8_t* data, size_t size, int64_t* codes, int k,
            size_t count);

// What is compiled once per instruction set. `bias`, `multiplier` and `shift` are of the layer.
struct Loops {
  // Sums, modulo 2^32, of int16 x[in] with weights [in / 2][out][2], beginning with the bias.
  void (*sums)(const int8_t* weights, const int32_t* bias, const int16_t* x, int in, int out,
               int32_t* to);
  // Sums of logits [size] to frequencies.
  void (*frequencies)(const int32_t* sums, size_t size, uint32_t* to);
  uint32_t (*total)(const uint32_t* frequencies, size_t size);
};
extern const Loops kScalarLoops, kAvx2Loops, kAvx512Loops;
extern const uint32_t kPowersOfTwo[kPowers];

}  // namespace latentpack::codes
