// The model of pixels_plane.h for AVX-512.
#include <cmath>
#include <cstring>

#include "pixels.h"
#include "pixels_coder.h"

#if LATENTPACK_X86
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi2,prefer-vector-width=512")
#endif
#define PIXELS_ISA avx512
#include "pixels_plane.h"

namespace latentpack::pixels {
void encode_avx512(const Tile& tile, Encoder& coder) { avx512::code_tile(tile, coder); }
void decode_avx512(const Tile& tile, Decoder& coder) { avx512::code_tile(tile, coder); }
}  // namespace latentpack::pixels
