// An array as its difference from another one; delta_ref.py defines the bytes, names are its own.
#pragma once

#include <string>
#include <vector>

#include "rans.h"

namespace latentpack::delta {

enum Operation { kUlp = 0, kDifference = 1, kXor = 2 };
constexpr size_t kBlock = 64;
constexpr int kMaxFieldBits = 11;
constexpr int kZero = 128;

struct Layout {
  int width = 2, operation = kUlp, shift = 0, bits = 0;
  bool legal() const {
    return (width == 1 || width == 2 || width == 4 || width == 8) && operation >= kUlp &&
           operation <= kXor && shift >= 0 && bits >= 0 && bits <= kMaxFieldBits &&
           shift + bits <= 8 * width;
  }
};

// Adds to tokens[2^bits][256], quiet[2^bits], nibbles[16] what n elements hold.
void count(const Layout&, const void* fresh, const void* base, size_t n, uint64_t* tokens,
           uint64_t* quiet, uint64_t* nibbles, Isa);

// How a chunk is coded. Row numbers: the classes', then the nibbles', then the skipped.
struct Coding {
  Layout layout;
  const uint8_t* class_of;  // [2^bits]
  int classes;
  bool blocks;
};

Status encode(const Coding&, Prepared&, Isa, const void* fresh, const void* base, size_t n,
              int lanes, Encoded& stream, std::vector<uint8_t>& raw);
// What is wrong, or nullptr.
const char* decode(const Coding&, Prepared&, Isa, const uint8_t* stream, size_t stream_bytes,
                   const uint8_t* raw, size_t raw_bytes, const void* base, size_t n, void* out);

}  // namespace latentpack::delta
