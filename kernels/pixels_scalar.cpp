// The model of pixels_plane.h for any machine.
#define PIXELS_ISA scalar
#include "pixels_plane.h"

namespace latentpack::pixels {
void encode_scalar(const Tile& tile, Encoder& coder) { scalar::code_tile(tile, coder); }
void decode_scalar(const Tile& tile, Decoder& coder) { scalar::code_tile(tile, coder); }
}  // namespace latentpack::pixels
