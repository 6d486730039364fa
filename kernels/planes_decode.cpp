// Decoding of arrays by byte planes; planes_ref.py is the definition.
//
// `parse_head` has checked the sizes and that the tables are there. A chunk is checked by its
// checksum and its streams by their ends; nothing outside the buffers is touched whatever the
// bytes are.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "planes.h"
#include "xxh3.h"

namespace latentpack::planes {
namespace {

// Decodes a few chunks at once: while one waits for a table's entry, another goes on.
class ChunkDecoder {
 public:
  ChunkDecoder(const Head& head, const uint8_t* coded, size_t coded_bytes, int width, int layout,
               Isa isa, size_t m, int together, bool past_caches)
      : head_(head), coded_(coded), width_(width), layout_(layout), isa_(isa),
        loops_(loops_for(isa)), planes_(std::max(width, plane_count(layout, width))),
        coded_end_(coded + coded_bytes), past_caches_(past_caches) {
    for (int k = 0; k < together; ++k) {
      for (int p = 0; p < planes_; ++p) parts_[k].buffers[p] = make_buffer(m);
      parts_[k].symbols = make_buffer(m);
    }
  }

  // Decodes `count` chunks, at most kTogether, whose records follow each other; chunk k has
  // sizes[k] elements and goes to out[k]. On an error `failed` is its number.
  const char* decode(const ChunkRecord* records, const size_t* sizes, uint8_t* const* out,
                     int count, Ahead ahead, int& failed) {
    ahead_ = ahead;
    for (int k = 0; k < count; ++k) {
      failed = k;
      Part& part = parts_[k];
      if (const char* error = open(records[k], sizes[k], out[k], part)) return error;
    }
    // Plane 0 is joined with the others as it is decoded: it comes last.
    for (int p = planes_; p-- > 0;) {
      if (const char* error = decode_streams(p, count, failed)) return error;
      for (int k = 0; k < count; ++k) {
        failed = k;
        if (!parts_[k].active || !p || p >= parts_[k].count || !parts_[k].joint) continue;
        if (const char* error = finish_plane(parts_[k], p)) return error;
      }
    }
    for (int k = 0; k < count; ++k) {
      failed = k;
      if (const char* error = finish(parts_[k])) return error;
    }
    return nullptr;
  }

 private:
  // A chunk on its way. `active` unless it needs no planes.
  struct Part {
    bool active;
    bool whole;  // the window's pairs have been joined already
    int joint;
    int layout, count;  // of the planes
    size_t n, m;
    uint8_t* out;
    const ChunkRecord* record;
    const uint8_t* fixed[kMaxWidth];
    const uint8_t* data[kMaxWidth];  // stream, then patches
    const uint8_t* planes[kMaxWidth];
    Buffer buffers[kMaxWidth], symbols;
  };

  const char* open(const ChunkRecord& record, size_t n, uint8_t* out, Part& part) {
    part.active = record.form >= kFormPlanes;
    part.layout = record.form == kFormBytes ? kBytePlanes : layout_;
    part.count = plane_count(part.layout, width_);
    part.record = &record;
    part.n = n;
    part.m = plane_bytes(part.layout, n);
    part.out = out;
    if (record.form == kFormConst) {
      fill(record.value, n, out);
      return nullptr;
    }
    if (const char* error = check(record)) return error;
    const uint8_t* data = coded_ + record.start;
    if (!part.active) {
      std::memcpy(out, data, n * width_);
      return nullptr;
    }
    for (int p = 0; p < part.count; ++p) {
      const uint8_t mode = record.planes[p].mode;
      part.fixed[p] = data;
      data += padded(mode == kRaw ? part.m : mode == kWindow ? (part.m + 1) / 2 : 0);
    }
    for (int p = 0; p < part.count; ++p) {
      const PlaneRecord& plane = record.planes[p];
      part.data[p] = data;
      part.planes[p] = plane.mode == kRaw ? part.fixed[p] : part.buffers[p].get();
      data += plane.size + size_t{3} * plane.patches;
    }
    part.joint = joint_of(part);
    part.whole = part.layout == kFloat && width_ == 2 && n % 64 == 0 &&
                 record.planes[0].mode == kWindow && record.planes[1].mode == kRaw;
    if (part.whole)
      loops_.join_window(part.fixed[0], part.fixed[1], record.planes[0].top, n, out, past_caches_,
                         std::exchange(ahead_, Ahead{}));
    return nullptr;
  }

  int joint_of(const Part& part) const {
    const PlaneRecord* planes = part.record->planes;
    for (int p = 1; p < part.count; ++p)
      if (planes[p].mode == kContext) return kApart;  // which looks at the plane above
    if (planes[0].mode == kPair) return width_ == 2 ? kJoinFloat2 : kJoinFloat4;
    if (planes[0].mode != kBytes) return kApart;
    if (part.layout == kNibbles) return kJoinNibbles;
    if (part.layout == kBytePlanes && width_ <= 2) return width_ == 1 ? kJoinNone : kJoinBytes2;
    return kApart;
  }

  static int joint_at(const Part& part, int p) { return p == 0 ? part.joint : kApart; }

  // The streams of plane p of all parts, the long ones together.
  const char* decode_streams(int p, int count, int& failed) {
    Stream streams[kTogether];
    int chosen[kTogether];
    for (int joint = kApart; joint <= kJoinNibbles; ++joint) {
      int together = 0;
      for (int k = 0; k < count; ++k) {
        Part& part = parts_[k];
        failed = k;
        if (!part.active || p >= part.count || joint_at(part, p) != joint) continue;
        const PlaneRecord& plane = part.record->planes[p];
        if (plane.mode != kBytes && plane.mode != kPair) continue;
        if (!open_stream(part.data[p], plane.size, streams[together]))
          return "a coded stream has an impossible head";
        streams[together].limit = coded_end_;
        if (together == 0) streams[together].ahead = std::exchange(ahead_, Ahead{});
        chosen[together++] = k;
      }
      if (const char* error = decode_together(p, streams, chosen, together, failed)) return error;
    }
    return nullptr;
  }

  // Lockstep as far as the shortest stream goes, then the others, then what steps left over.
  const char* decode_together(int p, Stream* streams, const int* chosen, int together,
                              int& failed) {
    size_t done[kTogether] = {};
    bool stopped[kTogether];
    for (int i = 0; i < together; ++i) {
      const Table& table = head_.tables[parts_[chosen[i]].record->planes[p].table];
      stopped[i] = streams[i].lanes != kMaxLanes || table.precision != kPrecision;
    }
    while (advance(p, streams, chosen, together, done, stopped)) {
    }
    for (int i = 0; i < together; ++i) {
      failed = chosen[i];
      if (const char* error = end_stream(parts_[chosen[i]], p, streams[i], done[i])) return error;
    }
    return nullptr;
  }

  // One call for all streams that have steps left; false if none has. `done` counts symbols.
  bool advance(int p, Stream* streams, const int* chosen, int together, size_t* done,
               bool* stopped) {
    Stream* going[kTogether];
    const Table* tables[kTogether];
    Target targets[kTogether];
    int which[kTogether], count = 0;
    size_t steps = SIZE_MAX;
    for (int i = 0; i < together; ++i) {
      const Part& part = parts_[chosen[i]];
      const size_t left = (full_symbols(part, p) - done[i]) / kMaxLanes;
      if (stopped[i] || left == 0) continue;
      going[count] = &streams[i];
      tables[count] = &head_.tables[part.record->planes[p].table];
      targets[count] = target_of(part, p, done[i]);
      steps = std::min(steps, left);
      which[count++] = i;
    }
    if (count == 0) return false;
    size_t made[kTogether];
    loops_.decode_steps(joint_at(parts_[chosen[0]], p), going, tables, targets, count, steps,
                        past_caches_, made);
    for (int j = 0; j < count; ++j) {
      done[which[j]] += kMaxLanes * made[j];
      Stream& stream = streams[which[j]];
      const bool short_of_room = made[j] < steps && stream.limit - stream.at < kReadable;
      stopped[which[j]] = short_of_room && !make_room(stream);
    }
    return true;
  }

  // A stream that is near its limit goes on in a copy with room behind it: a few words can stand
  // for very many symbols. False if it has done so, or has read too much.
  static bool make_room(Stream& stream) {
    const uint8_t* const limit = stream.tail + sizeof stream.tail;
    if (stream.limit == limit || stream.at > stream.end) return false;
    const auto left = static_cast<size_t>(stream.end - stream.at);
    std::memcpy(stream.tail, stream.at, left);
    std::memset(stream.tail + left, 0, sizeof stream.tail - left);
    stream.at = stream.tail;
    stream.end = stream.tail + left;
    stream.limit = limit;
    return true;
  }

  // Of plane p from symbol `done` on.
  Target target_of(const Part& part, int p, size_t done) const {
    Target target{};
    target.top = part.record->planes[p].top;
    if (joint_at(part, p) == kApart) {
      target.out = symbols_of(part, p) + done;
      return target;
    }
    target.out = part.out + done * elements_of(part.joint) * width_;
    for (int q = 1; q < part.count; ++q)
      target.stored[q - 1] = part.planes[q] + done * stored_of(part.joint);
    return target;
  }

  size_t symbol_count(const Part& part, int p) const {
    return part.record->planes[p].mode == kPair ? (part.m + 1) / 2 : part.m;
  }
  // Symbols all of whose elements are there.
  size_t full_symbols(const Part& part, int p) const {
    const int joint = joint_at(part, p);
    return joint == kApart ? symbol_count(part, p) : part.n / elements_of(joint);
  }
  uint8_t* symbols_of(const Part& part, int p) const {
    const bool pairs = part.record->planes[p].mode == kPair;
    return pairs || joint_at(part, p) ? part.symbols.get() : part.buffers[p].get();
  }

  // The symbols that are left, one by one; then the plane is complete but for its patches.
  const char* end_stream(Part& part, int p, Stream& stream, size_t done) {
    const PlaneRecord& plane = part.record->planes[p];
    const Table& table = head_.tables[plane.table];
    uint8_t* symbols = symbols_of(part, p);
    const size_t first = done, count = symbol_count(part, p);
    for (; done < count; ++done) {
      uint32_t& x = stream.states[done % stream.lanes];
      symbols[done] = get_symbol(table, x);
      if (x < kLower) {
        if (stream.at >= stream.end) return "a coded stream ends before its last symbol";
        x = x << 16 | load_word(stream.at);
        stream.at += 2;
      }
    }
    if (!ends_cleanly(stream)) return "a coded stream does not end cleanly";
    if (joint_at(part, p) != kApart) join_left(part, first);
    else if (plane.mode == kPair)
      loops_.from_nibbles(symbols, part.m, plane.top, part.buffers[p].get());
    return nullptr;
  }

  // The elements of the symbols from number `first` on.
  void join_left(const Part& part, size_t first) {
    const size_t left = part.n - first * elements_of(part.joint);
    const Target target = target_of(part, 0, first);
    const uint8_t* symbols = part.symbols.get() + first;
    const uint8_t* planes[] = {symbols, target.stored[0], target.stored[1], target.stored[2]};
    if (part.record->planes[0].mode == kPair) {
      loops_.from_nibbles(symbols, left, target.top, part.buffers[0].get());
      planes[0] = part.buffers[0].get();
    }
    loops_.join(planes, left, width_, part.layout, target.out);
  }

  const char* finish(Part& part) {
    if (!part.active) return nullptr;
    const bool joined = part.whole || part.joint != kApart;
    for (int p = 0; p < (joined ? 1 : part.count); ++p)
      if (const char* error = finish_plane(part, p)) return error;
    if (!joined) loops_.join(part.planes, part.n, width_, part.layout, part.out);
    return nullptr;
  }

  // What is no stream of steps, and the patches.
  const char* finish_plane(Part& part, int p) {
    const PlaneRecord& plane = part.record->planes[p];
    uint8_t* out = part.buffers[p].get();
    const bool joined = p == 0 && (part.whole || part.joint != kApart);
    if (plane.mode == kContext) {
      if (const char* error = decode_contexts(part, p, out)) return error;
    }
    if (plane.mode == kConst) std::memset(out, plane.value, part.m);
    if (plane.mode == kWindow && !joined)
      loops_.from_nibbles(part.fixed[p], part.m, plane.top, out);
    const uint8_t* patches = part.data[p] + plane.size;
    if (const char* error = check_patches(patches, plane.patches, part.m)) return error;
    if (joined) patch_elements(part, patches, plane.patches);
    else patch(patches, plane.patches, out);
    return nullptr;
  }

  const char* decode_contexts(const Part& part, int p, uint8_t* out) const {
    const PlaneRecord& plane = part.record->planes[p];
    const uint8_t* above = p ? part.planes[p - 1] : nullptr;
    Stream stream;
    if (!open_stream(part.data[p], plane.size, stream))
      return "a coded stream has an impossible head";
    const ContextSet& set = head_.sets[plane.table];
    if (const char* error = set.decode(stream, above, part.m, out)) return error;
    return ends_cleanly(stream) ? nullptr : "a coded stream does not end cleanly";
  }

  static const char* check_patches(const uint8_t* data, size_t count, size_t m) {
    int last = -1;
    for (size_t i = 0; i < count; ++i) {
      const int at = load_word(data + 2 * i);
      if (at <= last || static_cast<size_t>(at) >= m) return "the patches are out of order";
      last = at;
    }
    return nullptr;
  }

  static void patch(const uint8_t* data, size_t count, uint8_t* plane) {
    for (size_t i = 0; i < count; ++i) plane[load_word(data + 2 * i)] = data[2 * count + i];
  }

  // Patches of plane 0 in elements. What was written past the caches is far away: all places
  // are asked for before the first is mended.
  void patch_elements(const Part& part, const uint8_t* data, size_t count) const {
    const size_t step = static_cast<size_t>(part.layout == kNibbles ? 2 : width_);
#if defined(__GNUC__)
    for (size_t i = 0; i < count; ++i)
      __builtin_prefetch(part.out + step * load_word(data + 2 * i), 1);
#endif
    for (size_t i = 0; i < count; ++i) {
      const size_t at = load_word(data + 2 * i);
      const uint8_t value = data[2 * count + i];
      uint8_t* const element = part.out + step * at;
      if (part.layout == kFloat) put_exponent(element + width_ - 2, value);
      else if (part.layout == kNibbles) put_nibbles(element, value, 2 * at + 1 < part.n);
      else element[width_ - 1] = value;
    }
  }

  static void put_exponent(uint8_t* upper, uint8_t exponent) {
    const auto u = static_cast<uint16_t>((load_word(upper) & 0x807F) | exponent << 7);
    std::memcpy(upper, &u, 2);
  }

  static void put_nibbles(uint8_t* elements, uint8_t pair, bool both) {
    elements[0] = static_cast<uint8_t>((elements[0] & 0x87) | (pair << 3 & 0x78));
    if (both) elements[1] = static_cast<uint8_t>((elements[1] & 0x87) | (pair >> 1 & 0x78));
  }

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

  const Head& head_;
  const uint8_t* coded_;
  const int width_, layout_;
  const Isa isa_;
  const Loops& loops_;
  const int planes_;
  const uint8_t* const coded_end_;
  const bool past_caches_;
  Ahead ahead_;
  Part parts_[kTogether];
};

}  // namespace

std::string decode(const Head& head, const uint8_t* coded, size_t coded_bytes, size_t n, int width,
                   int layout, size_t first, size_t last, Isa isa, int threads, uint8_t* out) {
  if (first == last) return "";
  const size_t chunk = size_t{1} << head.chunk_log2;
  const size_t begin = first / chunk, end = (last + chunk - 1) / chunk;
  const size_t workers = std::max<size_t>(1, std::min<size_t>(threads, end - begin));
  const size_t group = std::clamp<size_t>((end - begin) / workers, 1, kTogether);
  const bool past_caches = (last - first) * width > kCacheBytes;
  std::atomic<size_t> next{begin};
  std::mutex failing;
  std::string failure;
  size_t first_failed = end;
  const auto work = [&](ChunkDecoder& decoder) {
    Buffer whole[kTogether];  // of chunks of which a part is wanted
    for (size_t c; (c = next.fetch_add(group)) < end;) {
      const int count = static_cast<int>(std::min(group, end - c));
      size_t sizes[kTogether];
      uint8_t* to[kTogether];
      for (int k = 0; k < count; ++k) {
        const size_t start = (c + k) * chunk;
        sizes[k] = std::min(chunk, n - start);
        if (first <= start && start + sizes[k] <= last) {
          to[k] = out + (start - first) * width;
        } else {
          if (!whole[k]) whole[k] = make_buffer(chunk * width);
          to[k] = whole[k].get();
        }
      }
      Ahead ahead;
      if (c + group * workers < end) {
        const ChunkRecord& later = head.chunks[c + group * workers];
        ahead.at = coded + later.start;
        ahead.end = std::min(ahead.at + group * later.size, coded + coded_bytes);
      }
      int k;
      if (const char* error = decoder.decode(&head.chunks[c], sizes, to, count, ahead, k)) {
        std::lock_guard<std::mutex> lock(failing);
        if (c + k < first_failed) {
          first_failed = c + k;
          failure = std::string(error) + " (chunk " + std::to_string(first_failed) + ")";
        }
        next = end;
        continue;
      }
      for (k = 0; k < count; ++k) {
        if (to[k] != whole[k].get()) continue;
        const size_t start = (c + k) * chunk;
        const size_t from = std::max(first, start), until = std::min(last, start + sizes[k]);
        std::memcpy(out + (from - first) * width, to[k] + (from - start) * width,
                    (until - from) * width);
      }
    }
  };
  std::vector<std::unique_ptr<ChunkDecoder>> decoders;
  for (size_t w = 0; w < workers; ++w)
    decoders.push_back(std::make_unique<ChunkDecoder>(head, coded, coded_bytes, width, layout, isa,
                                                      std::min(n, chunk),
                                                      static_cast<int>(group), past_caches));
  std::vector<std::thread> others;
  start_others(others, workers,
               [&](size_t w) { return std::thread(work, std::ref(*decoders[w])); });
  work(*decoders[0]);
  for (std::thread& other : others) other.join();
  return failure;
}

}  // namespace latentpack::planes
