// What does not depend on the instruction set: memory, the coder's end, which model runs.
#include "pixels.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "pixels_coder.h"

#if LATENTPACK_X86
#include <immintrin.h>
#endif

namespace latentpack::pixels {

#if LATENTPACK_X86
Arithmetic::Arithmetic() : before_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
Arithmetic::~Arithmetic() { _mm_setcsr(before_); }
#else
Arithmetic::Arithmetic() : before_(0) {}
Arithmetic::~Arithmetic() = default;
#endif

Memory::Memory(size_t bytes) {
  const size_t whole = (bytes + 63) / 64 * 64;
  at_ = std::aligned_alloc(64, whole ? whole : 64);
  if (!at_) throw std::bad_alloc();
  std::memset(at_, 0, whole);
}

Memory::~Memory() { std::free(at_); }

void Encoder::put(uint32_t byte) { out.push_back(static_cast<uint8_t>(byte)); }

// The fewest bytes that, with zeros after them, lie in the interval.
void Encoder::finish() {
  for (int bytes = 0; bytes <= 4; ++bytes) {
    const uint64_t unit = uint64_t{1} << (32 - 8 * bytes);
    const uint64_t value = (low + unit - 1) / unit * unit;
    if (value > high) continue;
    for (int i = 0; i < bytes; ++i) put(static_cast<uint32_t>(value >> (24 - 8 * i)) & 0xFF);
    break;
  }
  while (!out.empty() && !out.back()) out.pop_back();
}

std::vector<uint8_t> encode(Isa isa, const Tile& tile) {
  const Arithmetic arithmetic;
  Encoder coder;
  const auto run = isa == Isa::kAvx512 ? encode_avx512 : isa == Isa::kAvx2 ? encode_avx2 : encode_scalar;
  run(tile, coder);
  coder.finish();
  return coder.out;
}

void decode(Isa isa, const Tile& tile, const uint8_t* data, size_t size) {
  const Arithmetic arithmetic;
  Decoder coder(data, size);
  const auto run = isa == Isa::kAvx512 ? decode_avx512 : isa == Isa::kAvx2 ? decode_avx2 : decode_scalar;
  run(tile, coder);
}

}  // namespace latentpack::pixels
