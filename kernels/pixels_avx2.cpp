// The model of pixels_plane.h for AVX2.
#include <cmath>
#include <cstring>

#include "pixels.h"
#include "pixels_coder.h"

#if LATENTPACK_X86
#pragma GCC push_options
#pragma GCC target("avx2,bmi2")
#endif
#define PIXELS_ISA avx2
#include "pixels_plane.h"

namespace latentpack::pixels {
void encode_avx2(const Tile& tile, Encoder& coder) { avx2::code_tile(tile, coder); }
void decode_avx2(const Tile& tile, Decoder& coder) { avx2::code_tile(tile, coder); }
}  // namespace latentpack::pixels
