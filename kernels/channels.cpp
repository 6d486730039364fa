// Blocks of channels: split and coded, decoded and joined, a strip of rows at a time.
#include "channels.h"

#include <algorithm>
#include <cstring>

namespace latentpack::channels {
namespace {

constexpr size_t kStrip = 1 << 13;  // symbols decoded at once: all about them stays in the L1

size_t strip_rows(const Part& part, int layout) {
  return std::max<size_t>(1, kStrip / std::max<size_t>(1, row_symbols(part, layout)));
}

// Calls run(elements, count) for the runs of neighbours in rows [row, row + rows), in order.
template <typename Run>
void each_run(const Part& part, int bytes, size_t row, size_t rows, const Run& run) {
  const auto run_bytes = static_cast<ptrdiff_t>(part.width * static_cast<size_t>(bytes));
  const bool joined = part.groups == 1 || part.group_stride == run_bytes;
  const auto row_bytes = static_cast<ptrdiff_t>(part.groups) * run_bytes;
  uint8_t* at = part.at + static_cast<ptrdiff_t>(row) * part.row_stride;
  if (joined && (rows == 1 || part.row_stride == row_bytes)) return run(at, rows * part.channels());
  for (size_t r = 0; r < rows; ++r, at += part.row_stride) {
    if (joined) {
      run(at, part.channels());
    } else {
      for (size_t g = 0; g < part.groups; ++g)
        run(at + static_cast<ptrdiff_t>(g) * part.group_stride, part.width);
    }
  }
}

// The class of each symbol, row after row.
void tile(const Part& part, int layout, size_t rows, uint8_t* index) {
  const size_t symbols = row_symbols(part, layout);
  for (size_t r = 0; r < rows; ++r, index += symbols) std::memcpy(index, part.classes, symbols);
}

void rotate(const uint8_t* plane, size_t n, int16_t* symbols) {
  for (size_t i = 0; i < n; ++i)
    symbols[i] = static_cast<int16_t>((plane[i] << 1 | plane[i] >> 7) & 255);
}

// False if a symbol is not a byte.
bool rotate_back(const int16_t* symbols, size_t n, uint8_t* plane) {
  uint16_t seen = 0;
  for (size_t i = 0; i < n; ++i) {
    const auto s = static_cast<uint16_t>(symbols[i]);
    seen |= s;
    plane[i] = static_cast<uint8_t>(s >> 1 | s << 7);
  }
  return seen < 256;
}

// Exchanges the two middle nibbles of two distances, or of a symbol.
inline uint16_t swapped(uint16_t w) {
  return static_cast<uint16_t>((w & 0xF00F) | (w >> 4 & 0x00F0) | (w << 4 & 0x0F00));
}

constexpr size_t kPairs = 256;  // channels of a row that are turned at once

// Exponents of one row to symbols; the last of an odd number of channels is alone. Bytes and
// words have loops of their own, which compilers make vectors of.
void pair(const uint8_t* exponents, const uint8_t* tops, size_t channels, int16_t* symbols) {
  for (size_t first = 0; first < channels; first += kPairs) {
    const size_t count = std::min(kPairs, channels - first);
    uint8_t distances[kPairs] = {};
    for (size_t j = 0; j < count; ++j)
      distances[j] = static_cast<uint8_t>(tops[first + j] - exponents[first + j]);
    uint16_t words[kPairs / 2];
    std::memcpy(words, distances, sizeof words);
    for (size_t i = 0; i < (count + 1) / 2; ++i)
      symbols[first / 2 + i] = static_cast<int16_t>(swapped(words[i]));
  }
}

void unpair(const int16_t* symbols, const uint8_t* tops, size_t channels, uint8_t* exponents) {
  for (size_t first = 0; first < channels; first += kPairs) {
    const size_t count = std::min(kPairs, channels - first);
    uint16_t words[kPairs / 2];
    for (size_t i = 0; i < (count + 1) / 2; ++i)
      words[i] = swapped(static_cast<uint16_t>(symbols[first / 2 + i]));
    uint8_t distances[kPairs];
    std::memcpy(distances, words, sizeof words);
    for (size_t j = 0; j < count; ++j)
      exponents[first + j] = static_cast<uint8_t>(tops[first + j] - distances[j]);
  }
}

// Plane 0 of some rows to symbols, and back; false if a symbol is illegal.
void to_symbols(const Part& part, int layout, size_t rows, const uint8_t* plane,
                int16_t* symbols) {
  const size_t channels = part.channels();
  if (layout != planes::kFloat) return rotate(plane, rows * channels, symbols);
  for (size_t r = 0; r < rows; ++r)
    pair(plane + r * channels, part.tops, channels, symbols + r * row_symbols(part, layout));
}

bool from_symbols(const Part& part, int layout, size_t rows, const int16_t* symbols,
                  uint8_t* plane) {
  const size_t channels = part.channels();
  if (layout != planes::kFloat) return rotate_back(symbols, rows * channels, plane);
  for (size_t r = 0; r < rows; ++r)
    unpair(symbols + r * row_symbols(part, layout), part.tops, channels, plane + r * channels);
  return true;
}

const char* text_of(Status status) {
  switch (status) {
    case Status::kOk: return nullptr;
    case Status::kBadIndex:
    case Status::kUncodedSymbol: return kBadClass;
    case Status::kEmpty: return "the coded stream is empty, symbols were expected";
    case Status::kTooShort: return "the coded stream ends too early";
    case Status::kEscapeBits: return "an escape is longer than 18 bits";
    case Status::kEscapeValue: return "an escaped value is outside int16";
    case Status::kNoMemory: throw std::bad_alloc();
  }
  return "an unknown error";
}

// Whether every class has a row that is coded.
bool coded(const Prepared& tables, int layout, const std::vector<Part>& parts) {
  for (const Part& part : parts) {
    for (size_t c = 0; c < row_symbols(part, layout); ++c) {
      const int row = part.classes[c];
      if (row >= tables.rows || !tables.coded[row]) return false;
    }
  }
  return true;
}

// Reads the head of a stream; an error's text, or nullptr.
const char* open_stream(const uint8_t*& at, size_t& size, Decoding& decoding) {
  std::memset(&decoding, 0, sizeof decoding);
  if (size == 0) return nullptr;
  if (at[0] > 5) return "log2(lanes) is above 5";
  decoding.lanes = 1u << at[0];
  const size_t head = 1 + 4 * static_cast<size_t>(decoding.lanes);
  if (size < head || (size - head) % 2) return "not the size of a stream of so many lanes";
  std::memcpy(decoding.states, at + 1, head - 1);
  for (uint32_t j = 0; j < decoding.lanes; ++j)
    if (decoding.states[j] < kLower) return "a state is below its least value";
  at += head;
  size -= head;
  return nullptr;
}

bool at_end(const Decoding& decoding, size_t size) {
  bool same = decoding.at == size;
  for (uint32_t j = 0; j < decoding.lanes; ++j) same &= decoding.states[j] == kLower;
  return same;
}

struct Strip {
  std::vector<uint8_t> index, bytes;
  std::vector<int16_t> symbols;
};

const char* decode_part(Prepared& tables, Isa isa, int layout, int bytes, const Part& part,
                        const uint8_t* rests, Decoding& decoding, const uint8_t* words,
                        size_t size, Strip& strip) {
  const planes::Loops& loops = planes::loops_for(isa);
  const size_t n = part.count(), row_count = row_symbols(part, layout);
  const size_t most = std::min(strip_rows(part, layout), part.rows);
  strip.index.resize(most * row_count);
  strip.symbols.resize(most * row_count);
  strip.bytes.resize(most * part.channels());
  tile(part, layout, most, strip.index.data());
  for (size_t row = 0; row < part.rows; row += most) {
    const size_t rows = std::min(most, part.rows - row), count = rows * row_count;
    const Status status = latentpack::decode(tables, isa, decoding, words, size,
                                             strip.index.data(), count, strip.symbols.data());
    if (status != Status::kOk) return text_of(status);
    if (!from_symbols(part, layout, rows, strip.symbols.data(), strip.bytes.data()))
      return "a symbol is outside a byte";
    size_t done = 0;
    const size_t first = row * part.channels();
    each_run(part, bytes, row, rows, [&](uint8_t* elements, size_t length) {
      const uint8_t* planes[4] = {strip.bytes.data() + done};
      for (int p = 1; p < bytes; ++p)
        planes[p] = rests + static_cast<size_t>(p - 1) * n + first + done;
      loops.join(planes, length, bytes, layout, elements);
      done += length;
    });
  }
  return nullptr;
}

}  // namespace

size_t rest_bytes(const std::vector<Part>& parts, int bytes) {
  size_t n = 0;
  for (const Part& part : parts) n += part.count();
  return n * static_cast<size_t>(bytes - 1);
}

Status encode(const Prepared& tables, Isa isa, int layout, int bytes,
              const std::vector<Part>& parts, int lanes, uint8_t* out, size_t room_bytes,
              size_t& size) {
  if (!coded(tables, layout, parts)) return Status::kBadIndex;
  const planes::EncodeLoops& loops = planes::encode_loops_for(isa);
  size_t count = 0, most = 0;
  for (const Part& part : parts) {
    count += part.rows * row_symbols(part, layout);
    most = std::max(most, part.count());
  }
  // Symbols, their rows, and plane 0.
  const planes::Buffer room = planes::make_buffer(3 * count + most);
  auto* symbols = reinterpret_cast<int16_t*>(room.get());
  uint8_t* index = room.get() + 2 * count;
  uint8_t* plane = room.get() + 3 * count;
  uint8_t* rests = out;
  for (size_t i = 0, at = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    size_t done = 0;
    each_run(part, bytes, 0, part.rows, [&](const uint8_t* elements, size_t length) {
      uint8_t* to[4] = {plane + done};
      for (int p = 1; p < bytes; ++p)
        to[p] = rests + static_cast<size_t>(p - 1) * part.count() + done;
      loops.split(elements, length, bytes, layout, to);
      done += length;
    });
    to_symbols(part, layout, part.rows, plane, symbols + at);
    tile(part, layout, part.rows, index + at);
    at += part.rows * row_symbols(part, layout);
    rests += part.count() * static_cast<size_t>(bytes - 1);
  }
  Encoded stream;
  const Status status =
      latentpack::encode(tables, isa, symbols, index, count, lanes, stream);
  if (status != Status::kOk) return status;
  const size_t head = stream.lanes ? 1 + 4 * static_cast<size_t>(stream.lanes) : 0;
  size = static_cast<size_t>(rests - out) + head + 2 * stream.count;
  if (size > room_bytes || !head) return status;
  *rests = static_cast<uint8_t>(__builtin_ctz(static_cast<unsigned>(stream.lanes)));
  std::memcpy(rests + 1, stream.states, head - 1);
  reverse_words(stream.words.data(), stream.count, rests + head);
  return status;
}

const char* decode(Prepared& tables, Isa isa, int layout, int bytes,
                   const std::vector<Part>& parts, const uint8_t* data, size_t size) {
  const size_t rest = rest_bytes(parts, bytes);
  if (size < rest) return "the block is shorter than its plain planes";
  const uint8_t* words = data + rest;
  size -= rest;
  if (!coded(tables, layout, parts)) return kBadClass;
  Decoding decoding;
  if (const char* error = open_stream(words, size, decoding)) return error;
  Strip strip;
  for (const Part& part : parts) {
    const char* error = decode_part(tables, isa, layout, bytes, part, data, decoding, words, size,
                                    strip);
    if (error) return error;
    data += part.count() * static_cast<size_t>(bytes - 1);
  }
  return at_end(decoding, size) ? nullptr : "the coded stream does not end where it should";
}

}  // namespace latentpack::channels
