// Latents to symbols and scales to rows (rans_ref.quantise, rans_ref.rows_of), in loops that
// compilers vectorise: each is compiled once for every instruction set.
#include "rans.h"

#include <algorithm>
#include <limits>

#if LATENTPACK_X86
#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")))
#endif
#define INLINE inline __attribute__((always_inline))

namespace latentpack {
namespace {

constexpr size_t kBlock = 1024;
constexpr size_t kFewRows = 8;  // more are not worth a comparison each

// 1 where a row is coded.
INLINE void find_coded(const Prepared& tables, const uint8_t* index, size_t n, int32_t* keep) {
  if (tables.uncoded.size() > kFewRows) {
    for (size_t i = 0; i < n; ++i) keep[i] = tables.coded[index[i]];
    return;
  }
  std::fill(keep, keep + n, 1);
  for (uint8_t row : tables.uncoded) {
    for (size_t i = 0; i < n; ++i) keep[i] &= index[i] != row;
  }
}

template <bool kMeans>
INLINE bool quantise_block(const float* y, const float* means, const int32_t* keep, size_t n,
                           int16_t* symbols, float* y_hat) {
  int32_t wrong = 0;
  for (size_t i = 0; i < n; ++i) {
    const float mean = kMeans ? means[i] : 0.0f;
    const float residual = y[i] - mean;
    wrong |= residual != residual;
    float clamped = residual > -32768.0f ? residual : -32768.0f;
    clamped = clamped < 32767.0f ? clamped : 32767.0f;
    const int32_t q = static_cast<int32_t>(__builtin_rintf(clamped)) * keep[i];
    symbols[i] = static_cast<int16_t>(q);
    y_hat[i] = static_cast<float>(q) + mean;
  }
  return wrong == 0;
}

INLINE bool quantise_all(const Prepared& tables, const float* y, const float* means,
                         const uint8_t* index, size_t n, int16_t* symbols, float* y_hat) {
  int32_t keep[kBlock];
  bool good = true;
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t some = std::min(kBlock, n - i);
    find_coded(tables, index + i, some, keep);
    good &= means ? quantise_block<true>(y + i, means + i, keep, some, symbols + i, y_hat + i)
                  : quantise_block<false>(y + i, nullptr, keep, some, symbols + i, y_hat + i);
  }
  return good;
}

// The top bits of a float, so that they are in its order.
constexpr int kKeyBits = 13;
inline uint32_t key_of(float value) {
  uint32_t bits;
  value += 0.0f;  // -0 is 0
  std::memcpy(&bits, &value, 4);
  bits ^= static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u;
  return bits >> (32 - kKeyBits);
}

#if LATENTPACK_X86
AVX2 bool quantise_avx2(const Prepared& tables, const float* y, const float* means,
                        const uint8_t* index, size_t n, int16_t* symbols, float* y_hat) {
  return quantise_all(tables, y, means, index, n, symbols, y_hat);
}
AVX512 bool quantise_avx512(const Prepared& tables, const float* y, const float* means,
                            const uint8_t* index, size_t n, int16_t* symbols, float* y_hat) {
  return quantise_all(tables, y, means, index, n, symbols, y_hat);
}
#endif

}  // namespace

bool quantise(const Prepared& tables, Isa isa, const float* y, const float* means,
              const uint8_t* index, size_t n, int16_t* symbols, float* y_hat) {
#if LATENTPACK_X86
  if (isa == Isa::kAvx512) return quantise_avx512(tables, y, means, index, n, symbols, y_hat);
  if (isa == Isa::kAvx2) return quantise_avx2(tables, y, means, index, n, symbols, y_hat);
#endif
  (void)isa;
  return quantise_all(tables, y, means, index, n, symbols, y_hat);
}

// A scale's key says how many boundaries have lower ones; those of the same key are compared.
bool rows_of(const float* scales, size_t n, const float* boundaries, size_t count, uint8_t* rows) {
  float padded[256];
  std::fill(std::copy(boundaries, boundaries + count, padded), padded + 256,
            std::numeric_limits<float>::infinity());
  uint8_t below[1 << kKeyBits];
  uint32_t next = 0;
  size_t together = 0;
  for (size_t b = 0, first = 0; b < count; ++b) {
    const uint32_t key = key_of(boundaries[b]);
    if (key >= next) {
      std::memset(below + next, static_cast<int>(b), key + 1 - next);
      next = key + 1;
      first = b;
    }
    together = std::max(together, b + 1 - first);
  }
  std::memset(below + next, static_cast<int>(count), sizeof below - next);
  bool wrong = false;
  for (size_t i = 0; i < n; ++i) {
    const float scale = scales[i];
    wrong |= scale != scale;
    uint32_t row = below[key_of(scale)];
    for (size_t k = 0; k < together; ++k) row += padded[row] < scale;
    rows[i] = static_cast<uint8_t>(row);
  }
  return !wrong;
}

}  // namespace latentpack
