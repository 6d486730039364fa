// Lossless coding of arrays by byte planes: what its compiled parts share. planes_ref.py and
// its two neighbours define the bytes; names and numbers here are theirs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "rans.h"
#include "threads.h"

namespace latentpack::planes {

enum Layout { kBytePlanes = 0, kFloat = 1, kNibbles = 2 };
enum Speed { kFast, kTight, kStored, kContexts, kContextsBut0, kContextsOfBytes, kSegments };
enum Form : uint8_t { kFormRaw = 0, kFormConst = 1, kFormPlanes = 2, kFormBytes = 3 };
enum Mode : uint8_t { kRaw = 0, kConst = 1, kBytes = 2, kPair = 3, kWindow = 4, kContext = 5 };

constexpr int kMinChunkLog2 = 6, kMaxChunkLog2 = 16;
constexpr size_t kMaxChunk = size_t{1} << kMaxChunkLog2;
constexpr size_t kAlign = 16;
constexpr int kMaxWidth = 8;
constexpr int kMaxTables = 64;
constexpr int kPrecision = 12, kMaxPrecision = 15;
constexpr int kLogBits = 28;
constexpr int kPatchBits = 24;

// Uninitialised bytes, with room for one vector behind them. Freed buffers wait for the thread's
// next array, up to a few megabytes: the first touch of new pages would cost small arrays more
// than their coding.
struct Recycle {
  size_t bytes = 0;
  void operator()(uint8_t* buffer) const;
};
using Buffer = std::unique_ptr<uint8_t[], Recycle>;
Buffer make_buffer(size_t bytes);

constexpr uintptr_t kLine = 64;
constexpr int kWindowSize = 15;  // exponents of a window

inline size_t padded(size_t bytes) { return (bytes + kAlign - 1) & ~(kAlign - 1); }

// Planes of a layout, 0 where the width does not fit it.
inline int plane_count(int layout, int width) {
  if (layout == kFloat) return width == 2 || width == 4 ? width : 0;
  if (layout == kNibbles) return width == 1 ? 2 : 0;
  return layout == kBytePlanes && width >= 1 && width <= kMaxWidth ? width : 0;
}
// Bytes of each plane of n elements.
inline size_t plane_bytes(int layout, size_t n) { return layout == kNibbles ? (n + 1) / 2 : n; }

constexpr int kCostBits = 9;
constexpr int kCostUnit = 1 << kCostBits;  // costs are in units of 2^-9 bit
constexpr size_t kSampled = 4096;          // symbols counted to choose a table

// Frequencies that add to 2^precision, and what the two directions look up.
struct Table {
  uint16_t freq[256];
  uint16_t cum[256];
  int precision = kPrecision;
  // Encoder: 1 / freq, and of each symbol its cost with patches and what is coded instead.
  uint32_t reciprocal[256];
  int16_t cost[256];
  uint8_t instead[256];
  uint8_t entry[3][256];  // bytes of freq | cum << 12
  uint8_t rare[32];  // bit s >> 4 & 7 of byte (s & 15 | s >> 3 & 16): freq[s] is 0
  // Decoder, [slot]: freq | (slot - cum) << 12 | symbol << 24. Only for precision 12, where
  // both fit; `symbol_of` for the others.
  std::vector<uint32_t> slots;
  std::vector<uint8_t> symbol_of;

  void set_cums();
  void prepare_encoder(bool pairs);
  void prepare_context();   // encoder; a symbol of frequency 0 can't be coded
  void prepare_decoder();   // slots for precision 12, else as `prepare_searched`
  void prepare_searched();  // symbol_of
};

using Histogram = uint32_t[256];

class SymbolCounter {
 public:
  void add(const uint8_t* symbols, size_t n);
  void sum(Histogram counts) const;

 private:
  // Four tables: equal neighbours would wait for each other's increments in one.
  uint32_t part_[4][256] = {};
};

// The top of the window of exponents with the most of these counts; that of 0 is cleared.
uint8_t best_top(Histogram counts);
constexpr size_t kSampleBlock = 32;

// Calls use(first, count) for the blocks of a sample of n symbols, at most `limit`
// (planes_tables_ref.sampled); how many each symbol stands for.
template <typename Use>
int sample_blocks(size_t n, size_t limit, const Use& use) {
  int j = 0;
  while (n > limit << j) ++j;
  const size_t blocks = (n + (kSampleBlock << j) - 1) / (kSampleBlock << j);
  for (size_t b = 0; b < blocks; ++b) {
    const size_t place = static_cast<size_t>(uint64_t{uint32_t(b) * 2654435769u} >> (32 - j));
    const size_t first = ((b << j) + place) * kSampleBlock;
    if (first < n) use(first, n - first < kSampleBlock ? n - first : kSampleBlock);
  }
  return 1 << j;
}

// Counts the symbols of a sample; how many each stands for.
int count_sample(const uint8_t* symbols, size_t n, size_t limit, Histogram);
int64_t entropy(const Histogram);
// What a table with so many symbols is expected to take.
int64_t table_cost(int64_t present);

struct Sample {
  Histogram counts;
  int weight;
  void take(const uint8_t* symbols, size_t n) { weight = count_sample(symbols, n, kSampled, counts); }
};

// The tables of an array, made as its chunks are met. Tables stay where they are.
class TableSet {
 public:
  TableSet() { tables_.reserve(kMaxTables); }
  // The table to use (-1: make one) and its cost.
  int estimate(const Sample&, int kind, int64_t* cost) const;
  // Makes a table from the counts of all symbols; its number.
  int add(const Histogram, int kind);
  bool full() const { return tables_.size() >= kMaxTables; }
  const Table& operator[](int t) const { return tables_[t]; }
  void pack(std::string& head) const;

 private:
  std::vector<Table> tables_;
  int kinds_[kMaxTables];
};

void pack_table(const Table&, std::string& out);
// Reads a table at `at`, which moves behind it; an error's text, or nullptr.
const char* unpack_table(const uint8_t*& at, const uint8_t* end, Table&);

// Exponent of a window's nibble, and of an element of layout FLOAT.
inline uint8_t window_exponent(unsigned nibble, uint8_t top) {
  return static_cast<uint8_t>(nibble == 15 ? 0 : top - nibble);
}
inline uint8_t element_exponent(const uint8_t* element, int width) {
  return static_cast<uint8_t>(element[width - 1] << 1 | element[width - 2] >> 7);
}

inline int choose_lanes(size_t symbols) { return symbols >= 2048 ? 32 : symbols >= 128 ? 4 : 1; }

// Codes a symbol into a state; words go downwards from `out`.
inline uint8_t* put_symbol(uint32_t& x, const Table& table, uint8_t symbol, uint8_t* out) {
  const uint32_t freq = table.freq[symbol];
  if (x >> (32 - table.precision) >= freq) {
    const auto word = static_cast<uint16_t>(x);
    out -= 2;
    std::memcpy(out, &word, 2);
    x >>= 16;
  }
  const uint32_t q = divide(x, freq, table.reciprocal[symbol]);
  x += table.cum[symbol] + q * ((1u << table.precision) - freq);
  return out;
}

// The symbol of a state, which is left to be renormalised.
inline uint8_t get_symbol(const Table& table, uint32_t& x) {
  const uint32_t slot = x & ((1u << table.precision) - 1);
  const uint8_t s = table.symbol_of.empty() ? static_cast<uint8_t>(table.slots[slot] >> 24)
                                            : table.symbol_of[slot];
  x = table.freq[s] * (x >> table.precision) + slot - table.cum[s];
  return s;
}

struct PlaneRecord {
  uint8_t mode = kRaw, value = 0, top = 0, table = 0;
  uint16_t patches = 0;
  uint32_t size = 0;
};

struct ChunkRecord {
  uint8_t form = kFormRaw;
  uint8_t value[kMaxWidth] = {};
  uint32_t checksum = 0;
  size_t start = 0, size = 0;
  PlaneRecord planes[kMaxWidth];
};

struct EncodeLoops;
struct Stream;

// Where a symbol's class comes from.
enum Source { kNothing = 0, kBefore = 1, kAbove = 2 };
constexpr int kMaxSets = 8;

// The tables of a plane, by a class of an earlier byte.
struct ContextSet {
  int source = kNothing;
  std::vector<uint8_t> listed;
  uint8_t class_of[256] = {};
  std::vector<Table> tables;
  bool there[16] = {};  // whether a class has a table

  void list(const std::vector<uint8_t>& values);
  int class_at(const uint8_t* plane, const uint8_t* above, size_t i) const {
    if (source == kNothing) return 0;
    return class_of[source == kAbove ? above[i] : i ? plane[i - 1] : 0];
  }
  // Of m symbols; INT64_MAX if one can't be coded.
  int64_t cost(const uint8_t* plane, const uint8_t* above, size_t m) const;
  void pack(std::string& head) const;
  const char* unpack(const uint8_t*& at, const uint8_t* end);
  // Codes m symbols; words go downwards from `end`. Where they start.
  uint8_t* encode(const uint8_t* plane, const uint8_t* above, size_t m, uint32_t* states,
                  uint8_t* end) const;
  const char* decode(Stream&, const uint8_t* above, size_t m, uint8_t* plane) const;
};

// A set, or none, for each plane.
std::vector<std::unique_ptr<ContextSet>> learn_contexts(const uint8_t* data, size_t n, int width,
                                                        int layout, int speed, size_t chunk,
                                                        const EncodeLoops&);

// The parts of an array that have a table each in the way kSegments.
class Segments {
 public:
  Segments(size_t n, size_t chunks);
  void learn(const uint8_t* data, size_t n, int width, int layout, size_t chunk,
             const EncodeLoops&, int threads, TableSet&);
  size_t of_chunk(size_t c) const { return c * count / chunks_; }
  size_t count;
  uint8_t tops[kMaxTables] = {};

 private:
  size_t first_chunk(size_t t) const { return (t * chunks_ + count - 1) / count; }
  size_t chunks_;
};

struct Head {
  int chunk_log2 = 0;
  std::vector<Table> tables;
  std::vector<ContextSet> sets;
  std::vector<ChunkRecord> chunks;
};

// Reads a head for n elements and `coded_bytes` bytes; an error's text, or "".
std::string parse_head(const uint8_t* data, size_t bytes, size_t coded_bytes, size_t n, int width,
                       int layout, Head&);
void append_record(const ChunkRecord&, int width, int layout, std::string& head);

// Memory that will be read next: a loop asks for 128 bytes of it in each step.
struct Ahead {
  const uint8_t* at = nullptr;
  const uint8_t* end = nullptr;
};

// Bytes that must be readable for a step of 32 lanes.
constexpr ptrdiff_t kReadable = 64;

// A stream being read. Words up to `end` belong to it; bytes up to `limit` may be touched.
struct Stream {
  uint32_t states[kMaxLanes];
  int lanes;
  const uint8_t* at;
  const uint8_t* end;
  const uint8_t* limit;
  Ahead ahead;
  uint8_t tail[2 * kReadable];  // the last words, where nothing may be touched behind them
};

constexpr int kTogether = 2;

constexpr size_t kAsked = 128;  // bytes that are asked for at once

inline void ask(Ahead& ahead) {
  if (ahead.at >= ahead.end) return;
#if defined(__GNUC__)
  __builtin_prefetch(ahead.at, 0, 2);
  __builtin_prefetch(ahead.at + 64, 0, 2);
#endif
  ahead.at += 128;
}

// What becomes of the symbols of plane 0. kApart: a plane, in its buffer. The others: elements,
// joined at once with the other planes, which are there already.
enum Joint {
  kApart,
  kJoinNone,     // width 1: symbols are elements
  kJoinBytes2,   // layout BYTES, width 2
  kJoinFloat2,   // pairs of exponents
  kJoinFloat4,
  kJoinNibbles,
};

// Elements of a symbol, and bytes of each other plane beside it.
inline int elements_of(int joint) { return joint >= kJoinFloat2 ? 2 : 1; }
inline int stored_of(int joint) { return joint == kJoinFloat2 || joint == kJoinFloat4 ? 2 : 1; }

// Where the symbols of a stream go, and what they meet there.
struct Target {
  uint8_t* out;
  const uint8_t* stored[3];  // planes 1 and so on
  uint8_t top;               // of the window, where symbols are pairs of exponents
};

// Loops of the decoder, once per instruction set. Arrays may lie anywhere; n counts elements.
struct Loops {
  void (*join)(const uint8_t* const* planes, size_t n, int width, int layout, uint8_t* elements);
  // Exponents of m window nibbles.
  void (*from_nibbles)(const uint8_t* pairs, size_t m, uint8_t top, uint8_t* exponents);
  // Whole steps of 32 lanes of `count` streams at once (at most kTogether), while each stream has
  // kReadable bytes before its limit. done[k] says how many were done.
  void (*decode_steps)(int joint, Stream* const* streams, const Table* const* tables,
                       const Target* targets, int count, size_t steps, bool past_caches,
                       size_t* done);
  // n elements of a bf16 chunk, n a multiple of 64, from window nibbles and rests.
  void (*join_window)(const uint8_t* pairs, const uint8_t* rests, uint8_t top, size_t n,
                      uint8_t* out, bool past_caches, Ahead);
};

// A stream being coded, backwards from behind its last symbols; words go downwards from `out`.
struct EncodeStream {
  uint32_t states[kMaxLanes];
  const Table* table;
  const uint8_t* symbols;
  uint8_t* out;
  size_t steps;  // whole steps of 32 lanes that are to be done: an even number
  Ahead ahead;
};

constexpr int kStreams = 4;

// Loops of the encoder.
struct EncodeLoops {
  void (*split)(const uint8_t* elements, size_t n, int width, int layout, uint8_t* const* planes);
  // Of layout FLOAT: the exponents as pairs of window nibbles, planes 1 and so on as they are, and
  // positions of the exponents outside the window, ascending, at most `limit`. Their number, or
  // `limit`.
  size_t (*split_window)(const uint8_t* elements, size_t n, int width, uint8_t top, uint8_t* pairs,
                         uint8_t* const* planes, uint16_t* outside, size_t limit);
  // Replaces the symbols of frequency 0 by what is coded instead. Positions and old values of at
  // most `limit`; their number, or `limit`.
  size_t (*substitute)(const Table&, uint8_t* symbols, size_t n, uint16_t* at, uint8_t* old,
                       size_t limit);
  // Steps of `count` streams at once (at most kStreams), until one of them is done. 64 bytes
  // below their words may be overwritten.
  void (*encode_steps)(EncodeStream* const* streams, int count);
  // Copies past the caches, multiples of kAlign to such an address; `fence` makes them visible.
  void (*copy_past_caches)(uint8_t* to, const uint8_t* from, size_t bytes);
  void (*fence)();
};

// Results larger than this are written past the caches, which they would only flush.
constexpr size_t kCacheBytes = size_t{8} << 20;

const Loops& scalar_loops();
const Loops& avx2_loops();
const Loops& avx512_loops();
const Loops& loops_for(Isa);
const EncodeLoops& scalar_encode_loops();
const EncodeLoops& avx2_encode_loops();
const EncodeLoops& avx512_encode_loops();
const EncodeLoops& encode_loops_for(Isa);

// Codes n elements into `out` (n * width bytes); head and used bytes are set.
void encode(const uint8_t* data, size_t n, int width, int layout, int speed, int chunk_log2, Isa,
            int threads, uint8_t* out, std::string& head, size_t& used);
// Decodes elements [first, last) of n to `out`; an error's text, or "". Chunks that hold none of
// them are not looked at.
std::string decode(const Head&, const uint8_t* coded, size_t coded_bytes, size_t n, int width,
                   int layout, size_t first, size_t last, Isa, int threads, uint8_t* out);

}  // namespace latentpack::planes
