// What does not depend on the instruction set: which model runs.
#include "sounds.h"

#include "pixels.h"
#include "pixels_coder.h"

namespace latentpack::sounds {

std::vector<uint8_t> encode(Isa isa, const Sound& sound) {
  const pixels::Arithmetic arithmetic;
  pixels::Encoder coder;
  const auto run = isa == Isa::kAvx512 ? encode_avx512 : isa == Isa::kAvx2 ? encode_avx2 : encode_scalar;
  run(sound, coder);
  coder.finish();
  return coder.out;
}

void decode(Isa isa, const Sound& sound, const uint8_t* data, size_t size) {
  const pixels::Arithmetic arithmetic;
  pixels::Decoder coder(data, size);
  const auto run = isa == Isa::kAvx512 ? decode_avx512 : isa == Isa::kAvx2 ? decode_avx2 : decode_scalar;
  run(sound, coder);
}

}  // namespace latentpack::sounds
