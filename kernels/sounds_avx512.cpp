// The model of sounds_channel.h for AVX-512.
#include <cmath>
#include <cstring>
#include <new>

#include "pixels.h"
#include "pixels_coder.h"
#include "sounds.h"

#if LATENTPACK_X86
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi2,prefer-vector-width=512")
#endif
#define PIXELS_ISA avx512
#define SOUNDS_VECTORS_OF_64_BYTES
#include "sounds_channel.h"

namespace latentpack::sounds {
void encode_avx512(const Sound& sound, pixels::Encoder& coder) { avx512::code_sound(sound, coder); }
void decode_avx512(const Sound& sound, pixels::Decoder& coder) { avx512::code_sound(sound, coder); }
}  // namespace latentpack::sounds
