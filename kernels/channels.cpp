// Blocks of channels: split and coded, decoded and joined, a strip of rows at a time.
#include "channels.h"

#include <algorithm>
#include <cstring>

namespace latentpack::channels {

size_t rest_bytes(const std::vector<Part>& parts, int bytes) {
  size_t n = 0;
  for (const Part& part : parts) n += part.count();
  return n * static_cast<size_t>(bytes - 1);
}

namespace {

constexpr size_t kStrip = 1 << 12;  // symbols decoded at once: all about them stays near

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

// A block being decoded, a strip of rows at a time.
class BlockReader {
 public:
  // What of the next strip is to be decoded; its `n` is 0 at the end.
  Wanted wanted{};

  BlockReader(int layout, int bytes, Isa isa, const Coded& block)
      : layout_(layout), bytes_(bytes), loops_(planes::loops_for(isa)), block_(block) {}

  // Reads the head of the stream and prepares the first strip; an error's text, or nullptr.
  const char* open() {
    const size_t rest = rest_bytes(block_.parts, bytes_);
    if (block_.size < rest) return "the block is shorter than its plain planes";
    rests_ = block_.data;
    const uint8_t* stream = block_.data + rest;
    const size_t size = block_.size - rest;
    wanted.state = &state_;
    if (size) {
      if (stream[0] > 5) return "log2(lanes) is above 5";
      state_.lanes = 1u << stream[0];
      const size_t head = 1 + 4 * static_cast<size_t>(state_.lanes);
      if (size < head || (size - head) % 2) return "not the size of a stream of so many lanes";
      std::memcpy(state_.states, stream + 1, head - 1);
      for (uint32_t j = 0; j < state_.lanes; ++j)
        if (state_.states[j] < kLower) return "a state is below its least value";
      wanted.words = stream + head;
      wanted.bytes = size - head;
    }
    begin_part();
    return nullptr;
  }

  // Turns the decoded strip into elements and prepares the next; an error's text, or nullptr.
  const char* close_strip() {
    const Part& part = block_.parts[at_];
    if (!from_symbols(part, layout_, rows_, symbols_.data(), plane_.data()))
      return "a symbol is outside a byte";
    size_t done = 0;
    const size_t first = row_ * part.channels();
    each_run(part, bytes_, row_, rows_, [&](uint8_t* elements, size_t length) {
      const uint8_t* planes[4] = {plane_.data() + done};
      for (int p = 1; p < bytes_; ++p)
        planes[p] = rests_ + static_cast<size_t>(p - 1) * part.count() + first + done;
      loops_.join(planes, length, bytes_, layout_, elements);
      done += length;
    });
    row_ += rows_;
    if (row_ < part.rows) {
      begin_strip();
    } else {
      rests_ += part.count() * static_cast<size_t>(bytes_ - 1);
      ++at_;
      begin_part();
    }
    return nullptr;
  }

  const char* close() const {
    bool same = state_.at == wanted.bytes;
    for (uint32_t j = 0; j < state_.lanes; ++j) same &= state_.states[j] == kLower;
    return same ? nullptr : "the coded stream does not end where it should";
  }

 private:
  // The next part with anything in it.
  void begin_part() {
    while (at_ < block_.parts.size() && block_.parts[at_].count() == 0) ++at_;
    wanted.n = 0;
    if (at_ == block_.parts.size()) return;
    const Part& part = block_.parts[at_];
    const size_t symbols = row_symbols(part, layout_);
    most_ = std::min(strip_rows(part, layout_), part.rows);
    row_ = 0;
    index_.resize(most_ * symbols);
    symbols_.resize(most_ * symbols);
    plane_.resize(most_ * part.channels());
    tile(part, layout_, most_, index_.data());
    begin_strip();
  }

  void begin_strip() {
    const Part& part = block_.parts[at_];
    rows_ = std::min(most_, part.rows - row_);
    wanted.index = index_.data();
    wanted.symbols = symbols_.data();
    wanted.n = rows_ * row_symbols(part, layout_);
  }

  const int layout_, bytes_;
  const planes::Loops& loops_;
  const Coded& block_;
  Decoding state_{};
  const uint8_t* rests_ = nullptr;
  size_t at_ = 0;                           // the part
  size_t row_ = 0, rows_ = 0, most_ = 0;    // of the part: the strip's first and how many, at most
  std::vector<uint8_t> index_, plane_;
  std::vector<int16_t> symbols_;
};

// The strips that are left of an open block.
const char* finish(Prepared& tables, Isa isa, BlockReader& block) {
  while (block.wanted.n) {
    const Wanted& next = block.wanted;
    const Status status = latentpack::decode(tables, isa, *next.state, next.words, next.bytes,
                                             next.index, next.n, next.symbols);
    if (status != Status::kOk) return text_of(status);
    if (const char* error = block.close_strip()) return error;
  }
  return block.close();
}

const char* together(Prepared& tables, Isa isa, BlockReader& one, BlockReader& two) {
  const char* error = one.open();
  if (!error) error = two.open();
  while (!error && one.wanted.n && two.wanted.n) {
    const Status status = decode_two(tables, isa, one.wanted, two.wanted);
    error = text_of(status);
    if (!error) error = one.close_strip();
    if (!error) error = two.close_strip();
  }
  if (!error) error = finish(tables, isa, one);
  return error ? error : finish(tables, isa, two);
}

}  // namespace

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
                   const std::vector<Coded>& blocks) {
  for (const Coded& block : blocks)
    if (!coded(tables, layout, block.parts)) return kBadClass;
  for (size_t i = 0; i < blocks.size(); i += 2) {
    BlockReader one(layout, bytes, isa, blocks[i]);
    if (i + 1 == blocks.size()) {
      const char* error = one.open();
      return error ? error : finish(tables, isa, one);
    }
    BlockReader two(layout, bytes, isa, blocks[i + 1]);
    if (const char* error = together(tables, isa, one, two)) return error;
  }
  return nullptr;
}

}  // namespace latentpack::channels
