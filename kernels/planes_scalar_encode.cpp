// The plane encoder's loops for any machine.
#define PLANES_TARGET
#include "planes_encode_loops.h"

namespace latentpack::planes {
namespace {

size_t substitute(const Table& table, uint8_t* symbols, size_t n, uint16_t* at, uint8_t* old,
                  size_t limit) {
  size_t found = 0;
  for (size_t i = 0; i < n; ++i)
    if (!table.freq[symbols[i]])
      found = replace_rare(table, symbols, i, at, old, found, limit);
  return found;
}

void encode_step(EncodeStream& stream) {
  const Table& table = *stream.table;
  uint8_t* out = stream.out;
  stream.symbols -= kMaxLanes;
  for (int j = kMaxLanes; j-- > 0;) {
    const uint8_t symbol = stream.symbols[j];
    uint32_t x = stream.states[j];
    const uint32_t freq = table.freq[symbol];
    const bool full = x >> (32 - kPrecision) >= freq;
    const auto word = static_cast<uint16_t>(x);
    std::memcpy(out - 2, &word, 2);
    out -= full ? 2 : 0;
    x = full ? x >> 16 : x;
    const uint32_t q = divide(x, freq, table.reciprocal[symbol]);
    stream.states[j] = x + table.cum[symbol] + q * ((1u << kPrecision) - freq);
  }
  stream.out = out;
}

void encode_steps(EncodeStream* const* streams, int count) {
  for (int k = 0; k < count; ++k)
    for (; streams[k]->steps; --streams[k]->steps) encode_step(*streams[k]);
}

void copy_past_caches(uint8_t* to, const uint8_t* from, size_t bytes) { std::memcpy(to, from, bytes); }
void fence() {}

}  // namespace

const EncodeLoops& scalar_encode_loops() {
  static const EncodeLoops loops = {split,        split_window, substitute,
                                    encode_steps, copy_past_caches,   fence};
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
