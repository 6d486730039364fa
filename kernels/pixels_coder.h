// A binary arithmetic coder with probabilities of 16 bits, without carries: the interval
// [low, high] of 32 bits is split in two, and its leading bytes leave when they are settled.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace latentpack::pixels {

// The last value of the part of [low, high] that stands for a 1 of probability p / 2^16.
inline uint32_t split(uint32_t low, uint32_t high, uint32_t p) {
  return low + static_cast<uint32_t>(static_cast<uint64_t>(high - low) * p >> 16);
}

struct Encoder {
  static constexpr bool kDecodes = false;
  std::vector<uint8_t> out;
  uint32_t low = 0, high = 0xFFFFFFFFu;

  int code(int bit, uint32_t p) {
    const uint32_t middle = split(low, high, p);
    if (bit) high = middle;
    else low = middle + 1;
    while (!((low ^ high) >> 24)) {
      put(high >> 24);
      low <<= 8;
      high = high << 8 | 0xFF;
    }
    return bit;
  }
  void put(uint32_t byte);
  void finish();
};

struct Decoder {
  static constexpr bool kDecodes = true;
  const uint8_t* at;
  const uint8_t* end;
  uint32_t low = 0, high = 0xFFFFFFFFu, value = 0;

  Decoder(const uint8_t* data, size_t size) : at(data), end(data + size) {
    for (int i = 0; i < 4; ++i) value = value << 8 | next();
  }
  uint32_t next() { return at < end ? *at++ : 0; }

  int code(int, uint32_t p) {
    const uint32_t middle = split(low, high, p);
    const int bit = value <= middle;
    if (bit) high = middle;
    else low = middle + 1;
    while (!((low ^ high) >> 24)) {
      low <<= 8;
      high = high << 8 | 0xFF;
      value = value << 8 | next();
    }
    return bit;
  }
};

}  // namespace latentpack::pixels
