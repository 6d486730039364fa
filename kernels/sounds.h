// Sounds by online prediction and mixing: see sounds_ref.py, which defines every bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "rans.h"  // Isa

namespace latentpack::pixels {
struct Encoder;
struct Decoder;
}  // namespace latentpack::pixels

namespace latentpack::sounds {

constexpr int kEfforts = 3;

// A channel and what may be in it.
struct Channel {
  int32_t* samples;   // as many as the sound is long; a decoder fills them
  int32_t low, high;  // the least and the largest sample that is legal
  int partner;        // another channel that it is predicted from, or itself
};

struct Sound {
  size_t length;  // samples of a channel
  const Channel* channels;
  int count;
  int effort;  // 0 to 2
};

// Codes the channels, sample by sample in turn, and returns their bytes. Throws std::bad_alloc.
std::vector<uint8_t> encode(Isa, const Sound&);

// Fills the channels from bytes of an encoder with the same sound. Any bytes decode to something.
void decode(Isa, const Sound&, const uint8_t* data, size_t size);

void encode_scalar(const Sound&, pixels::Encoder&);
void encode_avx2(const Sound&, pixels::Encoder&);
void encode_avx512(const Sound&, pixels::Encoder&);
void decode_scalar(const Sound&, pixels::Decoder&);
void decode_avx2(const Sound&, pixels::Decoder&);
void decode_avx512(const Sound&, pixels::Decoder&);

}  // namespace latentpack::sounds
