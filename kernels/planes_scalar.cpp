// The plane coder's loops for any machine.
#define PLANES_TARGET
#include "planes_loops.h"

namespace latentpack::planes {
namespace {

size_t decode_steps(Stream& stream, const uint8_t* limit, const Table& table, uint8_t* out,
                    size_t steps) {
  const uint32_t* slots = table.slots.data();
  uint32_t x[32];
  std::memcpy(x, stream.states, sizeof x);
  const uint8_t* at = stream.at;
  size_t done = 0;
  for (; done < steps && limit - at >= 64; ++done, out += 32) {
    for (int j = 0; j < 32; ++j) {
      const uint32_t e = slots[x[j] & 0xFFF];
      const uint32_t y = (e & 0xFFF) * (x[j] >> 12) + (e >> 12 & 0xFFF);
      const bool low = y < kLower;
      x[j] = low ? y << 16 | load_word(at) : y;
      at += low ? 2 : 0;
      out[j] = static_cast<uint8_t>(e >> 24);
    }
  }
  std::memcpy(stream.states, x, sizeof x);
  stream.at = at;
  return done;
}

uint8_t* encode_steps(uint32_t* states, const Table& table, const uint8_t* symbols, size_t steps,
                      uint8_t* out) {
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

}  // namespace

const Loops& scalar_loops() {
  static const Loops loops = {split,       join,         to_nibbles,   from_nibbles, substitute,
                              differences, decode_steps, encode_steps, nullptr};
  return loops;
}

const Loops& loops_for(Isa isa) {
#if LATENTPACK_X86
  if (isa >= Isa::kAvx512) return avx512_loops();
  if (isa >= Isa::kAvx2) return avx2_loops();
#endif
  (void)isa;
  return scalar_loops();
}

}  // namespace latentpack::planes
