// The plane decoder's loops for any machine.
#define PLANES_TARGET
#include "planes_loops.h"

namespace latentpack::planes {
namespace {

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

void join_window(const uint8_t* pairs, const uint8_t* rests, uint8_t top, size_t n, uint8_t* out,
                 bool, Ahead) {
  uint8_t exponents[64];
  for (size_t i = 0; i < n; i += sizeof exponents) {
    from_nibbles(pairs + i / 2, sizeof exponents, top, exponents);
    join_float2(exponents, rests + i, sizeof exponents, out + 2 * i);
  }
}

}  // namespace

const Loops& scalar_loops() {
  static const Loops loops = {join, from_nibbles, decode_steps, decode_bf16, join_window};
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
