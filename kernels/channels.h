// Elements in channels, coded by the class of their channel: see channels_ref.py.
#pragma once

#include <string>
#include <vector>

#include "planes.h"
#include "rans.h"

namespace latentpack::channels {

// An array [rows, groups, width] whose width elements lie side by side, strides in bytes; the
// class of each symbol of a row; in layout kFloat the top of each of its groups * width channels.
struct Part {
  uint8_t* at;
  size_t rows, groups, width;
  ptrdiff_t row_stride, group_stride;
  const uint8_t* classes;
  const uint8_t* tops;
  size_t channels() const { return groups * width; }
  size_t count() const { return rows * channels(); }
};

// Symbols of a row of a part.
inline size_t row_symbols(const Part& part, int layout) {
  return layout == planes::kFloat ? (part.channels() + 1) / 2 : part.channels();
}

// A class without a row that is coded: an error of the caller, not of the data.
inline constexpr const char* kBadClass = "a class is outside the tables, or its row is not coded";

// Elements of `bytes` bytes each; layout kFloat or kBytePlanes. The other planes go to `out`,
// which has room for them, and then the stream if that has room too; the size of both.
Status encode(const Prepared&, Isa, int layout, int bytes, const std::vector<Part>&, int lanes,
              uint8_t* out, size_t room, size_t& size);
size_t rest_bytes(const std::vector<Part>&, int bytes);

struct Coded {
  const uint8_t* data;
  size_t size;
  std::vector<Part> parts;  // to be filled
};
// An error's text, or nullptr. Two blocks at a time: see `decode_two`.
const char* decode(Prepared&, Isa, int layout, int bytes, const std::vector<Coded>&);

}  // namespace latentpack::channels
