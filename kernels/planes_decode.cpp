// Decoding of arrays by byte planes; planes_ref.py is the definition.
//
// The head is checked before anything is decoded: every table, mode and size, and that the
// chunks take exactly the coded bytes. A chunk's bytes are checked by their checksum, and its
// streams by their ends; nothing outside the buffers is touched whatever the bytes are.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>

#include "planes.h"
#include "xxh3.h"

namespace latentpack::planes {
namespace {

// Reads forward; past the end it yields zeros and remembers.
class Cursor {
 public:
  Cursor(const uint8_t* at, const uint8_t* end) : at_(at), end_(end) {}
  bool take(void* to, size_t bytes) {
    if (static_cast<size_t>(end_ - at_) < bytes) {
      cut_ = true;
      at_ = end_;
      std::memset(to, 0, bytes);
      return false;
    }
    std::memcpy(to, at_, bytes);
    at_ += bytes;
    return true;
  }
  template <typename T>
  T integer() {
    T value;
    take(&value, sizeof value);
    return value;
  }
  bool cut() const { return cut_; }
  const uint8_t*& at() { return at_; }
  const uint8_t* end() const { return end_; }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
  bool cut_ = false;
};

const char* read_plane(Cursor& in, int p, int layout, size_t tables, PlaneRecord& plane) {
  plane.mode = in.integer<uint8_t>();
  if (plane.mode > kWindow) return "the mode of a plane is unknown";
  if (plane.mode >= kPair && (layout != kFloat || p > 0)) return "the mode of a plane does not fit";
  const bool stream = plane.mode == kPair || plane.mode == kBytes;
  if (plane.mode == kConst) plane.value = in.integer<uint8_t>();
  if (plane.mode == kPair || plane.mode == kWindow) plane.top = in.integer<uint8_t>();
  if (stream) plane.table = in.integer<uint8_t>();
  if (plane.mode >= kBytes) plane.patches = in.integer<uint16_t>();
  if (stream) plane.size = in.integer<uint32_t>();
  if (in.cut()) return "the chunk records are cut short";
  return stream && plane.table >= tables ? "a plane names a table that is not there" : nullptr;
}

const char* read_chunk(Cursor& in, size_t n, int width, int layout, size_t tables,
                       ChunkRecord& record) {
  record.form = in.integer<uint8_t>();
  if (record.form == kFormConst) in.take(record.value, width);
  else record.checksum = in.integer<uint32_t>();
  if (in.cut()) return "the chunk records are cut short";
  if (record.form > kFormPlanes) return "the form of a chunk is unknown";
  record.size = record.form == kFormRaw ? n * width : 0;
  if (record.form != kFormPlanes) return nullptr;
  const size_t m = plane_bytes(layout, n);
  for (int p = 0; p < plane_count(layout, width); ++p) {
    PlaneRecord& plane = record.planes[p];
    if (const char* error = read_plane(in, p, layout, tables, plane)) return error;
    const size_t fixed = plane.mode == kRaw ? m : plane.mode == kWindow ? (m + 1) / 2 : 0;
    record.size += padded(fixed) + plane.size + size_t{3} * plane.patches;
  }
  return nullptr;
}

// Decodes chunks one after another, or two at a time where that is faster.
class ChunkDecoder {
 public:
  ChunkDecoder(const Head& head, const uint8_t* coded, int width, int layout, Isa isa, size_t m)
      : head_(head), coded_(coded), width_(width), layout_(layout), isa_(isa),
        loops_(loops_for(isa)), planes_(plane_count(layout, width)) {
    for (int p = 0; p < planes_; ++p) buffers_[p] = make_buffer(m);
    symbols_ = make_buffer(m);
  }

  const char* decode(const ChunkRecord& record, size_t n, uint8_t* out) {
    if (record.form == kFormConst) {
      fill(record.value, n, out);
      return nullptr;
    }
    if (const char* error = check(record)) return error;
    const uint8_t* data = coded_ + record.start;
    if (record.form == kFormRaw) {
      std::memcpy(out, data, n * width_);
      return nullptr;
    }
    const size_t m = plane_bytes(layout_, n);
    const uint8_t* fixed[kMaxWidth];
    for (int p = 0; p < planes_; ++p) {
      const uint8_t mode = record.planes[p].mode;
      fixed[p] = data;
      data += padded(mode == kRaw ? m : mode == kWindow ? (m + 1) / 2 : 0);
    }
    const uint8_t* planes[kMaxWidth];
    for (int p = 0; p < planes_; ++p) {
      const PlaneRecord& plane = record.planes[p];
      planes[p] = plane.mode == kRaw ? fixed[p] : buffers_[p].get();
      if (const char* error = decode_plane(plane, fixed[p], data, m, buffers_[p].get()))
        return error;
      data += plane.size + size_t{3} * plane.patches;
    }
    loops_.join(planes, n, width_, layout_, out);
    return nullptr;
  }

 private:
  const char* check(const ChunkRecord& record) const {
    const uint64_t hash = xxh3::hash64(coded_ + record.start, record.size, isa_);
    return static_cast<uint32_t>(hash) == record.checksum ? nullptr : "a chunk fails its checksum";
  }

  void fill(const uint8_t* value, size_t n, uint8_t* out) const {
    if (std::count(value, value + width_, value[0]) == width_) {
      std::memset(out, value[0], n * width_);
      return;
    }
    std::memcpy(out, value, width_);
    for (size_t have = width_, all = n * width_; have < all;) {
      const size_t more = std::min(have, all - have);
      std::memcpy(out + have, out, more);
      have += more;
    }
  }

  const char* decode_plane(const PlaneRecord& plane, const uint8_t* fixed, const uint8_t* data,
                           size_t m, uint8_t* out) {
    if (plane.mode == kConst) std::memset(out, plane.value, m);
    if (plane.mode == kWindow) loops_.from_nibbles(fixed, m, plane.top, out);
    if (plane.mode == kBytes || plane.mode == kPair) {
      const bool pair = plane.mode == kPair;
      uint8_t* symbols = pair ? symbols_.get() : out;
      const size_t count = pair ? (m + 1) / 2 : m;
      const Table& table = head_.tables[plane.table];
      if (const char* error = decode_stream(data, plane.size, table, symbols, count)) return error;
      if (pair) loops_.from_nibbles(symbols, m, plane.top, out);
    }
    return patch(data + plane.size, plane.patches, m, out);
  }

  static const char* patch(const uint8_t* data, size_t count, size_t m, uint8_t* out) {
    int last = -1;
    for (size_t i = 0; i < count; ++i) {
      const int at = load_word(data + 2 * i);
      if (at <= last || static_cast<size_t>(at) >= m) return "the patches are out of order";
      out[at] = data[2 * count + i];
      last = at;
    }
    return nullptr;
  }

  const char* decode_stream(const uint8_t* data, size_t bytes, const Table& table, uint8_t* out,
                            size_t count) const {
    Stream stream;
    if (!open_stream(data, bytes, stream)) return "a coded stream has an impossible head";
    size_t done = 0;
    if (stream.lanes == kMaxLanes && table.precision == kPrecision)
      done = kMaxLanes * loops_.decode_steps(stream, stream.end, table, out, count / kMaxLanes);
    for (; done < count; ++done) {
      uint32_t& x = stream.states[done % stream.lanes];
      out[done] = decode_one(table, x);
      if (x < kLower) {
        if (stream.at >= stream.end) return "a coded stream ends before its last symbol";
        x = x << 16 | load_word(stream.at);
        stream.at += 2;
      }
    }
    return ends_cleanly(stream) ? nullptr : "a coded stream does not end cleanly";
  }

  static bool open_stream(const uint8_t* data, size_t bytes, Stream& stream) {
    if (bytes == 0 || bytes % 2 == 0 || data[0] > 5) return false;
    stream.lanes = 1 << data[0];
    const size_t states = sizeof(uint32_t) * stream.lanes;
    if (bytes < 1 + states) return false;
    std::memcpy(stream.states, data + 1, states);
    stream.at = data + 1 + states;
    stream.end = data + bytes;
    return true;
  }

  static bool ends_cleanly(const Stream& stream) {
    return stream.at == stream.end &&
           std::count(stream.states, stream.states + stream.lanes, kLower) == stream.lanes;
  }

  // The symbol of a state, which is left to be renormalised.
  static uint8_t decode_one(const Table& table, uint32_t& x) {
    const uint32_t slot = x & ((1u << table.precision) - 1);
    const uint8_t s = table.precision == kPrecision
                          ? static_cast<uint8_t>(table.slots[slot] >> 24)
                          : table.symbol_of[slot];
    x = table.freq[s] * (x >> table.precision) + slot - table.cum[s];
    return s;
  }

  const Head& head_;
  const uint8_t* coded_;
  const int width_, layout_;
  const Isa isa_;
  const Loops& loops_;
  const int planes_;
  Buffer buffers_[kMaxWidth], symbols_;
};

}  // namespace

std::string parse_head(const uint8_t* data, size_t bytes, size_t coded_bytes, size_t n, int width,
                       int layout, Head& head) {
  Cursor in(data, data + bytes);
  head.chunk_log2 = in.integer<uint8_t>();
  const size_t tables = in.integer<uint8_t>();
  if (in.cut()) return "the head is cut short";
  if (head.chunk_log2 < kMinChunkLog2 || head.chunk_log2 > kMaxChunkLog2)
    return "the chunk size is 2**" + std::to_string(head.chunk_log2) + ", expected 2**6 to 2**16";
  if (tables > kMaxTables) return std::to_string(tables) + " tables, expected at most 64";
  head.tables.resize(tables);
  for (Table& table : head.tables) {
    if (const char* error = unpack_table(in.at(), in.end(), table)) return error;
    table.prepare_decoder();
  }
  const size_t chunk = size_t{1} << head.chunk_log2;
  const size_t count = n / chunk + (n % chunk != 0);
  if (count > static_cast<size_t>(in.end() - in.at()) / 2)
    return "the chunk records are cut short: " + std::to_string(count) + " chunks";
  head.chunks.resize(count);
  size_t start = 0;
  for (size_t c = 0; c < count; ++c) {
    ChunkRecord& record = head.chunks[c];
    const size_t elements = std::min(chunk, n - c * chunk);
    if (const char* error = read_chunk(in, elements, width, layout, tables, record))
      return std::string(error) + " (chunk " + std::to_string(c) + ")";
    record.start = start;
    if (c + 1 < count) record.size = padded(record.size);
    start += record.size;
    if (start > coded_bytes) break;
  }
  if (start != coded_bytes)
    return std::to_string(coded_bytes) + " coded bytes, the chunks take " + std::to_string(start);
  if (in.at() != in.end()) return "bytes are left after the chunk records";
  return "";
}

std::string decode(const Head& head, const uint8_t* coded, size_t n, int width, int layout,
                   size_t first, size_t last, Isa isa, int threads, uint8_t* out) {
  const size_t chunk = size_t{1} << head.chunk_log2;
  std::atomic<size_t> next{first};
  std::mutex failing;
  std::string failure;
  size_t failed = last;
  const auto work = [&](ChunkDecoder& decoder) {
    for (size_t c; (c = next.fetch_add(1)) < last;) {
      uint8_t* to = out + (c - first) * chunk * width;
      const char* error = decoder.decode(head.chunks[c], std::min(chunk, n - c * chunk), to);
      if (!error) continue;
      std::lock_guard<std::mutex> lock(failing);
      if (c < failed) failure = std::string(error) + " (chunk " + std::to_string(c) + ")";
      failed = std::min(failed, c);
      next = last;
    }
  };
  const size_t workers = std::max<size_t>(1, std::min<size_t>(threads, last - first));
  std::vector<ChunkDecoder> decoders;
  decoders.reserve(workers);
  for (size_t w = 0; w < workers; ++w)
    decoders.emplace_back(head, coded, width, layout, isa, std::min(n, chunk));
  std::vector<std::thread> others;
  for (size_t w = 1; w < workers; ++w) others.emplace_back(work, std::ref(decoders[w]));
  if (workers) work(decoders[0]);
  for (std::thread& other : others) other.join();
  return failure;
}

}  // namespace latentpack::planes
