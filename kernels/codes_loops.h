// Loops of the code prior, compiled once per instruction set. The includer defines CODES_TARGET (a
// target attribute or nothing), CODES_LANES (32-bit lanes of a vector), CODES_WIDEN(at): as many
// pairs of int8 as there are lanes to pairs of int16, and CODES_MADD(a, b): lane by lane the sum of
// the products of both 16-bit halves.
#include <cstring>

#include "codes.h"

namespace latentpack::codes {
namespace {

constexpr int kLanes = CODES_LANES;
constexpr int kTile = 4;  // vectors that are summed at once, to fill the pauses
typedef uint32_t U __attribute__((vector_size(4 * CODES_LANES)));
typedef int32_t I __attribute__((vector_size(4 * CODES_LANES)));

template <int kVectors>
CODES_TARGET __attribute__((always_inline)) inline void tile(const int8_t* weights,
                                                             const int32_t* bias, const int16_t* x,
                                                             int in, int out, int32_t* to) {
  U acc[kVectors];
  for (int v = 0; v < kVectors; ++v) std::memcpy(&acc[v], bias + v * kLanes, sizeof acc[v]);
  for (int i = 0; i < in; i += 2, weights += 2 * static_cast<size_t>(out)) {
    uint32_t pair;
    std::memcpy(&pair, x + i, sizeof pair);
    const U both = U{} + pair;
    for (int v = 0; v < kVectors; ++v)
      acc[v] += (U)CODES_MADD(CODES_WIDEN(weights + 2 * v * kLanes), both);
  }
  for (int v = 0; v < kVectors; ++v) std::memcpy(to + v * kLanes, &acc[v], sizeof acc[v]);
}

CODES_TARGET void sums(const int8_t* weights, const int32_t* bias, const int16_t* x, int in,
                       int out, int32_t* to) {
  int o = 0;
  for (; o + kTile * kLanes <= out; o += kTile * kLanes)
    tile<kTile>(weights + 2 * o, bias + o, x, in, out, to + o);
  for (; o < out; o += kLanes) tile<1>(weights + 2 * o, bias + o, x, in, out, to + o);
}

CODES_TARGET void frequencies(const int32_t* sums, size_t size, uint32_t* to) {
  int32_t most = INT32_MIN;
  for (size_t i = 0; i < size; ++i) {
    const auto rounded = static_cast<int32_t>(static_cast<uint32_t>(sums[i]) + (1u << (kLogitShift - 1)));
    const int32_t logit = rounded >> kLogitShift;
    to[i] = static_cast<uint32_t>(logit);
    most = logit > most ? logit : most;
  }
  for (size_t i = 0; i < size; ++i) {
    const uint32_t d = static_cast<uint32_t>(most) - to[i], octaves = d >> 5;
    to[i] = (kPowersOfTwo[d & (kPowers - 1)] >> (octaves < 31 ? octaves : 31)) | 1;
  }
}

CODES_TARGET uint32_t total(const uint32_t* frequencies, size_t size) {
  uint32_t sum = 0;
  for (size_t i = 0; i < size; ++i) sum += frequencies[i];
  return sum;
}

#define CODES_LOOPS {sums, frequencies, total}

}  // namespace
}  // namespace latentpack::codes
