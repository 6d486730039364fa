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
  for (; done < steps && stream.limit - at >= kReadable; ++done) {
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

// One symbol's elements; `i` is its number.
void put(int joint, const Target& to, const uint16_t* window, size_t i, uint32_t symbol) {
  const auto pair = [&](size_t at) {  // two bf16
    const uint8_t* r = to.stored[0] + 2 * at;
    const uint32_t a = (r[0] << 8 & 0x8000) | (r[0] & 0x7F) | window[symbol & 15];
    const uint32_t b = (r[1] << 8 & 0x8000) | (r[1] & 0x7F) | window[symbol >> 4];
    return a | b << 16;
  };
  const auto s = static_cast<uint8_t>(symbol);
  switch (joint) {
    case kJoinBytes2: {
      const uint8_t* planes[] = {&s, to.stored[0] + i};
      return join_bytes2(planes, 1, to.out + 2 * i);
    }
    case kJoinNibbles: return join_nibbles(&s, to.stored[0] + i, 2, to.out + 2 * i);
    case kJoinFloat2: {
      const uint32_t both = pair(i);
      std::memcpy(to.out + 4 * i, &both, 4);
      return;
    }
    case kJoinFloat4: {
      const uint32_t both = pair(i);
      const uint8_t *b1 = to.stored[1] + 2 * i, *b0 = to.stored[2] + 2 * i;
      const uint32_t x[] = {both << 16 | uint32_t{b1[0]} << 8 | b0[0],
                            (both & 0xFFFF0000) | uint32_t{b1[1]} << 8 | b0[1]};
      std::memcpy(to.out + 8 * i, x, 8);
      return;
    }
  }
  to.out[i] = s;
}

template <int kJoint>
size_t decode_joint(Stream& stream, const Table& table, const Target& target, size_t steps) {
  uint16_t window[16];
  window_table(target.top, window);
  const auto emit = [&](size_t i, uint32_t symbol) { put(kJoint, target, window, i, symbol); };
  return steps_of(stream, table, steps, emit);
}

void decode_steps(int joint, Stream* const* streams, const Table* const* tables,
                  const Target* targets, int count, size_t steps, bool, size_t* done) {
  using Decode = size_t(Stream&, const Table&, const Target&, size_t);
  constexpr Decode* decode[] = {decode_joint<kApart>,      decode_joint<kJoinNone>,
                                decode_joint<kJoinBytes2>, decode_joint<kJoinFloat2>,
                                decode_joint<kJoinFloat4>, decode_joint<kJoinNibbles>};
  for (int k = 0; k < count; ++k) done[k] = decode[joint](*streams[k], *tables[k], targets[k], steps);
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
  static const Loops loops = {join, from_nibbles, decode_steps, join_window};
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
