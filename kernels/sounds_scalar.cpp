// The model of sounds_channel.h for any machine.
#define PIXELS_ISA scalar
#include "sounds_channel.h"

namespace latentpack::sounds {
void encode_scalar(const Sound& sound, pixels::Encoder& coder) { scalar::code_sound(sound, coder); }
void decode_scalar(const Sound& sound, pixels::Decoder& coder) { scalar::code_sound(sound, coder); }
}  // namespace latentpack::sounds
