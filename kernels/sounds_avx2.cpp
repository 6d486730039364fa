// The model of sounds_channel.h for AVX2.
#include <cmath>
#include <cstring>
#include <new>

#include "pixels.h"
#include "pixels_coder.h"
#include "sounds.h"

#if LATENTPACK_X86
#pragma GCC push_options
#pragma GCC target("avx2,bmi2")
#endif
#define PIXELS_ISA avx2
#include "sounds_channel.h"

namespace latentpack::sounds {
void encode_avx2(const Sound& sound, pixels::Encoder& coder) { avx2::code_sound(sound, coder); }
void decode_avx2(const Sound& sound, pixels::Decoder& coder) { avx2::code_sound(sound, coder); }
}  // namespace latentpack::sounds
