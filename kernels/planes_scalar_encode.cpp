// The plane encoder's loops for any machine.
#define PLANES_TARGET
#include "planes_encode_loops.h"

namespace latentpack::planes {
namespace {

size_t to_nibbles(const uint8_t* exponents, size_t m, uint8_t top, uint8_t* pairs) {
  const auto nibble = [top](uint8_t exponent) {
    const auto distance = static_cast<uint8_t>(top - exponent);
    return static_cast<uint8_t>(exponent == 0 || distance > 15 ? 15 : distance);
  };
  for (size_t i = 0; i < m / 2; ++i)
    pairs[i] = static_cast<uint8_t>(nibble(exponents[2 * i]) | nibble(exponents[2 * i + 1]) << 4);
  if (m % 2) pairs[m / 2] = nibble(exponents[m - 1]);
  size_t outside = 0;
  for (size_t i = 0; i < m; ++i)
    outside += static_cast<uint8_t>(top - exponents[i]) > 14 && exponents[i] != 0;
  return outside;
}

void substitute(const Table& table, uint8_t* symbols, size_t n) {
  for (size_t i = 0; i < n; ++i)
    symbols[i] = table.instead[symbols[i]];
}

size_t differences(const uint8_t* a, const uint8_t* b, size_t m, uint16_t* at,
                   size_t limit) {
  size_t found = 0;
  for (size_t start = 0; start < m; start += 64) {
    const size_t end = std::min(m, start + 64);
    if (std::memcmp(a + start, b + start, end - start) == 0) continue;
    for (size_t i = start; i < end && found < limit; ++i) {
      at[found] = static_cast<uint16_t>(i);
      found += a[i] != b[i];
    }
  }
  return found;
}

uint8_t* encode_steps(uint32_t* states, const Table& table, const uint8_t* symbols, size_t steps,
                      uint8_t* out, Ahead) {
  uint32_t x[32];
  std::memcpy(x, states, sizeof x);
  for (; steps > 0; --steps) {
    symbols -= 32;
    for (int j = 31; j >= 0; --j) {
      const uint32_t freq = table.freq[symbols[j]];
      const bool full = x[j] >> (32 - kPrecision) >= freq;
      const auto word = static_cast<uint16_t>(x[j]);
      std::memcpy(out - 2, &word, 2);
      out -= full ? 2 : 0;
      const uint32_t y = full ? x[j] >> 16 : x[j];
      const uint32_t q = divide(y, freq, table.reciprocal[symbols[j]]);
      x[j] = y + table.cum[symbols[j]] + q * ((1u << kPrecision) - freq);
    }
  }
  std::memcpy(states, x, sizeof x);
  return out;
}

void copy_past_caches(uint8_t* to, const uint8_t* from, size_t n) { std::memcpy(to, from, n); }

}  // namespace

const EncodeLoops& scalar_encode_loops() {
  static const EncodeLoops loops = {split,       to_nibbles,   substitute,
                                    differences, encode_steps, copy_past_caches};
  return loops;
}

const EncodeLoops& encode_loops_for(Isa isa) {
#if LATENTPACK_X86
  if (isa >= Isa::kAvx512) return avx512_encode_loops();
  if (isa >= Isa::kAvx2) return avx2_encode_loops();
#endif
  (void)isa;
  return scalar_encode_loops();
}

}  // namespace latentpack::planes
