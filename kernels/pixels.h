// Planes of pictures by online prediction and mixing: see pixels_ref.py, which defines every bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "rans.h"  // Isa

namespace latentpack::pixels {

// A plane of a tile and how it is coded.
struct Plane {
  uint16_t* samples;  // height * width; an encoder leaves in them what a decoder makes of them
  int peak;           // the largest sample that is legal, 1 to 65535
  int error;          // the largest difference between a sample and what is decoded
  int links;          // so many of the planes before it are used, the nearest ones: 0 to 2
};

struct Tile {
  int height, width;
  const Plane* planes;
  int count;
};

// Codes the planes one after the other and returns their bytes. Throws std::bad_alloc.
std::vector<uint8_t> encode(Isa, const Tile&);

// Fills the planes from bytes of an encoder with the same tile. Any bytes decode to something.
void decode(Isa, const Tile&, const uint8_t* data, size_t size);

// Zeros at a multiple of 64, freed at the end of the scope. Not a std::vector: code for special
// instructions must not be where the linker may take it for that of a std::vector elsewhere.
class Memory {
 public:
  explicit Memory(size_t bytes);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  template <typename T>
  T* as() const {
    return static_cast<T*>(at_);
  }

 private:
  void* at_;
};

// Rounding to nearest with denormal numbers in this scope, whatever the caller has set.
class Arithmetic {
 public:
  Arithmetic();
  ~Arithmetic();
  Arithmetic(const Arithmetic&) = delete;
  Arithmetic& operator=(const Arithmetic&) = delete;

 private:
  unsigned before_;
};

struct Encoder;
struct Decoder;
void encode_scalar(const Tile&, Encoder&);
void encode_avx2(const Tile&, Encoder&);
void encode_avx512(const Tile&, Encoder&);
void decode_scalar(const Tile&, Decoder&);
void decode_avx2(const Tile&, Decoder&);
void decode_avx512(const Tile&, Decoder&);

}  // namespace latentpack::pixels
