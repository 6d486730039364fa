// The plane coder's loops for any machine.
#define PLANES_TARGET
#include "planes_loops.h"

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


// Steps of one stream; `emit` takes the number of a symbol in the step, and the symbol.
template <typename Emit>
size_t steps_of(Stream& stream, const Table& table, size_t steps, const Emit& emit) {
  const uint32_t* slots = table.slots.data();
  uint32_t x[kMaxLanes];
  std::memcpy(x, stream.states, sizeof x);
  const uint8_t* at = stream.at;
  size_t done = 0;
  for (; done < steps && stream.limit - at >= 64; ++done) {
    for (int j = 0; j < kMaxLanes; ++j) {
      const uint32_t e = slots[x[j] & 0xFFF];
      const uint32_t y = (e & 0xFFF) * (x[j] >> 12) + (e >> 12 & 0xFFF);
      const bool low = y < kLower;
      x[j] = low ? y << 16 | load_word(at) : y;
      at += low ? 2 : 0;
      emit(kMaxLanes * done + j, e >> 24);
    }
  }
  std::memcpy(stream.states, x, sizeof x);
  stream.at = at;
  return done;
}

void decode_steps(Stream* const* streams, const Table* const* tables, uint8_t* const* out,
                  int count, size_t steps, size_t* done) {
  for (int k = 0; k < count; ++k) {
    uint8_t* to = out[k];
    const auto emit = [to](size_t i, uint32_t symbol) { to[i] = static_cast<uint8_t>(symbol); };
    done[k] = steps_of(*streams[k], *tables[k], steps, emit);
  }
}

void decode_bf16(Stream* const* streams, const Table* const* tables, const uint8_t* tops,
                 const uint8_t* const* rests, uint8_t* const* out, int count, size_t steps,
                 bool, size_t* done) {
  for (int k = 0; k < count; ++k) {
    uint16_t shifted[16];
    window_table(tops[k], shifted);
    const uint8_t* r = rests[k];
    uint8_t* to = out[k];
    const auto emit = [&](size_t i, uint32_t symbol) {
      const uint32_t a = r[2 * i], b = r[2 * i + 1];
      const uint32_t low = (a << 8 & 0x8000) | (a & 0x7F) | shifted[symbol & 15];
      const uint32_t high = (b << 8 & 0x8000) | (b & 0x7F) | shifted[symbol >> 4];
      const uint32_t both = low | high << 16;
      std::memcpy(to + 4 * i, &both, 4);
    };
    done[k] = steps_of(*streams[k], *tables[k], steps, emit);
  }
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

void join_window(const uint8_t* pairs, const uint8_t* rests, uint8_t top, size_t n, uint8_t* out,
                 bool, Ahead) {
  uint8_t exponents[64];
  for (size_t i = 0; i < n; i += sizeof exponents) {
    from_nibbles(pairs + i / 2, sizeof exponents, top, exponents);
    join_float2(exponents, rests + i, sizeof exponents, out + 2 * i);
  }
}

void copy_past_caches(uint8_t* to, const uint8_t* from, size_t n) { std::memcpy(to, from, n); }

}  // namespace

const Loops& scalar_loops() {
  static const Loops loops = {split,       join,         to_nibbles,  from_nibbles,
                              substitute,  differences,  decode_steps, decode_bf16,
                              join_window, encode_steps, copy_past_caches};
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
