// The head of an array coded by byte planes; planes_head_ref.py is the definition.
//
// It is checked before anything is decoded: every table, mode and size, and that the chunks take
// exactly the coded bytes.
#include <algorithm>
#include <cstring>
#include <string>

#include "planes.h"

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

const char* read_plane(Cursor& in, int p, int layout, const Head& head, PlaneRecord& plane) {
  plane.mode = in.integer<uint8_t>();
  if (plane.mode > kContext) return "the mode of a plane is unknown";
  const bool exponents = plane.mode == kPair || plane.mode == kWindow;
  if (exponents && (layout != kFloat || p > 0)) return "the mode of a plane does not fit";
  const bool stream = plane.mode == kPair || plane.mode == kBytes || plane.mode == kContext;
  if (plane.mode == kConst) plane.value = in.integer<uint8_t>();
  if (exponents) plane.top = in.integer<uint8_t>();
  if (stream) plane.table = in.integer<uint8_t>();
  if (exponents || plane.mode == kBytes) plane.patches = in.integer<uint16_t>();
  if (stream) plane.size = in.integer<uint32_t>();
  if (in.cut()) return "the chunk records are cut short";
  const size_t there = plane.mode == kContext ? head.sets.size() : head.tables.size();
  if (stream && plane.table >= there) return "a plane names a table that is not there";
  if (plane.mode == kContext && p == 0 && head.sets[plane.table].source == kAbove)
    return "the contexts of plane 0 are those of a plane before it";
  return nullptr;
}

const char* read_chunk(Cursor& in, size_t n, int width, int layout, const Head& head,
                       ChunkRecord& record) {
  record.form = in.integer<uint8_t>();
  if (record.form == kFormConst) in.take(record.value, width);
  else record.checksum = in.integer<uint32_t>();
  if (in.cut()) return "the chunk records are cut short";
  if (record.form > kFormBytes) return "the form of a chunk is unknown";
  record.size = record.form == kFormRaw ? n * width : 0;
  if (record.form < kFormPlanes) return nullptr;
  if (record.form == kFormBytes) layout = kBytePlanes;
  const size_t m = plane_bytes(layout, n);
  for (int p = 0; p < plane_count(layout, width); ++p) {
    PlaneRecord& plane = record.planes[p];
    if (const char* error = read_plane(in, p, layout, head, plane)) return error;
    const size_t fixed = plane.mode == kRaw ? m : plane.mode == kWindow ? (m + 1) / 2 : 0;
    record.size += padded(fixed) + plane.size + size_t{3} * plane.patches;
  }
  return nullptr;
}

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
  const size_t sets = in.integer<uint8_t>();
  if (in.cut()) return "the head is cut short";
  if (sets > kMaxSets) return std::to_string(sets) + " sets of contexts, expected at most 8";
  head.sets.resize(sets);
  for (ContextSet& set : head.sets)
    if (const char* error = set.unpack(in.at(), in.end())) return error;
  const size_t chunk = size_t{1} << head.chunk_log2;
  const size_t count = n / chunk + (n % chunk != 0);
  if (count > static_cast<size_t>(in.end() - in.at()) / 2)
    return "the chunk records are cut short: " + std::to_string(count) + " chunks";
  head.chunks.resize(count);
  size_t start = 0;
  for (size_t c = 0; c < count; ++c) {
    ChunkRecord& record = head.chunks[c];
    const size_t elements = std::min(chunk, n - c * chunk);
    if (const char* error = read_chunk(in, elements, width, layout, head, record))
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

void append_record(const ChunkRecord& record, int width, int layout, std::string& head) {
  const auto put = [&head](uint32_t value, int bytes) {
    for (int b = 0; b < bytes; ++b) head.push_back(static_cast<char>(value >> (8 * b)));
  };
  put(record.form, 1);
  if (record.form == kFormConst) {
    head.append(reinterpret_cast<const char*>(record.value), width);
    return;
  }
  put(record.checksum, 4);
  if (record.form == kFormRaw) return;
  if (record.form == kFormBytes) layout = kBytePlanes;
  for (int p = 0; p < plane_count(layout, width); ++p) {
    const PlaneRecord& plane = record.planes[p];
    put(plane.mode, 1);
    if (plane.mode == kConst) put(plane.value, 1);
    if (plane.mode == kPair || plane.mode == kWindow) put(plane.top, 1);
    const bool stream = plane.mode == kPair || plane.mode == kBytes || plane.mode == kContext;
    if (stream) put(plane.table, 1);
    if (plane.mode >= kBytes && plane.mode != kContext) put(plane.patches, 2);
    if (stream) put(plane.size, 4);
  }
}

}  // namespace latentpack::planes
