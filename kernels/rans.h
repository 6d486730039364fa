// rANS over integer tables: what every compiled coder shares. The stream and the arithmetic are
// defined in rans_ref.py; this is the same thing for machines.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <vector>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the streams are little-endian and are read without swapping"
#endif

#if (defined(__x86_64__) || defined(_M_X64)) && (defined(__GNUC__) || defined(__clang__))
#define LATENTPACK_X86 1
#else
#define LATENTPACK_X86 0
#endif

namespace latentpack {

constexpr uint32_t kLower = 1u << 16;
constexpr int kMaxLanes = 32;
constexpr int kMaxRows = 256;
constexpr int kBytesPerLane = 1200;
constexpr size_t kCostSamples = 1u << 13;
constexpr uint32_t kMaxEscapeBits = 18;

// Instruction sets, slowest first; the numbers are the `backend` argument of the functions.
enum class Isa { kScalar = 0, kAvx2 = 1, kAvx512 = 2 };
Isa best_isa();

inline uint16_t load_word(const uint8_t* at) {
  uint16_t word;
  std::memcpy(&word, at, 2);
  return word;
}

// floor(2^32 / freq), for `divide`; freq >= 1.
inline uint32_t reciprocal(uint32_t freq) {
  return freq == 1 ? 0xFFFFFFFFu : static_cast<uint32_t>((uint64_t{1} << 32) / freq);
}

// Exact x / freq: the product with the rounded reciprocal is at most one too small.
inline uint32_t divide(uint32_t x, uint32_t freq, uint32_t rcp) {
  uint32_t q = static_cast<uint32_t>((uint64_t{x} * rcp) >> 32);
  return q + (x - q * freq >= freq);
}

// The encoder writes words in the order it makes them, which is the reverse of the reader's.
// One step needs room for one word at `out`, whether it uses it or not.
inline uint32_t encode_step(uint32_t x, uint16_t*& out, uint32_t freq, uint32_t cum, uint32_t rcp,
                            int precision) {
  uint32_t full = (x >> (32 - precision)) >= freq;
  *out = static_cast<uint16_t>(x);
  out += full;
  x >>= full * 16;
  uint32_t q = divide(x, freq, rcp);
  return x + cum + q * ((1u << precision) - freq);
}

inline uint32_t encode_raw(uint32_t x, uint16_t*& out, uint32_t value, int bits) {
  uint32_t full = (x >> (32 - bits)) != 0;
  *out = static_cast<uint16_t>(x);
  out += full;
  return (x >> (full * 16)) << bits | value;
}

// Words to be read, with what may be touched beyond them: reading up to `limit` is safe, words
// from `end` on are not part of the stream. Addresses need no alignment.
struct Reader {
  const uint8_t* at;
  const uint8_t* end;
  const uint8_t* limit;
  ptrdiff_t readable_words() const { return (limit - at) / 2; }
};

// freq[0 .. count) from counts, as rans_ref.normalise says; false if that is not possible.
bool normalise(const uint32_t* counts, size_t count, int precision, uint16_t* freq);

// log2 of 0 .. 2^precision + 1 in units of 2^-28 (rans_ref.log2_table); made on first use.
const int64_t* log2_table(int precision);

// What the coders look up, made once per set of tables.
//
// A set is narrow when precision <= 12 and all its values lie within 255 of each other. Only
// narrow sets have the dense tables that the fast paths use; the others are searched.
struct Prepared {
  int precision = 0;
  int rows = 0;
  bool narrow = false;
  std::vector<uint8_t> uncoded;  // the rows of length 0
  int base = 0;  // narrow: the lowest value of all rows
  std::vector<int32_t> offset, length;
  std::vector<uint32_t> start;  // of each row in freq and cum
  std::vector<uint16_t> freq;
  std::vector<uint32_t> cum;
  uint8_t coded[kMaxRows] = {};

  // Narrow: [row * 256 + value - base] freq | cum << 16, and its reciprocal. 0 where the row has
  // no such value, which is then an escape; column 255 always is.
  std::vector<uint32_t> entries, reciprocals;
  // Narrow, decoder: [row << precision | slot] value - base, 255 = escape. The entry is looked
  // up next; both together are small enough to stay near.
  std::vector<uint8_t> values;
  // Narrow, SIMD decoder of kMaxLanes: freq | (slot - cum) << 12 | (value - base) << 24 at the
  // same places. Four times the size, but one gather, and long streams make it warm.
  std::vector<uint32_t> slots;
  // Wide, decoder: [row * 257 + (slot >> shift)] the entry that holds a bucket's first slot.
  std::vector<uint32_t> buckets;
  int bucket_shift = 0;
  // The decoder's rows are filled when an index first reaches them: so many are.
  std::atomic<int> rows_with_values{0}, rows_with_slots{0};
  std::mutex filling;

  Prepared() = default;
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;

  // The arrays are as rans_ref.Tables has checked them.
  void build(int precision, const int32_t* offsets, const int32_t* lengths, int rows,
             const uint16_t* freqs, size_t freq_count);
  // Makes rows [0, end) ready for decoding, `slots` only if wanted.
  void fill(int end, bool want_slots);

 private:
  void build_narrow();
  void build_buckets();
  void fill_values(int row);
  void fill_slots(int row);
};

// The name of the capsule in which Python holds a Prepared.
constexpr const char* kPreparedCapsule = "latentpack.rans.prepared";

// Up to `steps` whole steps (one symbol per lane) of narrow tables, without escapes. They stop
// before an escape, perhaps before the whole step in which one stands, and before a step for
// which fewer than `lanes` words are readable; they return the number of symbols done.
// Encoders go backwards: `symbols` and `index` point behind the last step.
using DecodeSteps = size_t (*)(const Prepared&, uint32_t* states, int lanes, Reader&,
                               const uint8_t* index, size_t steps, int16_t* symbols);
using EncodeSteps = size_t (*)(const Prepared&, uint32_t* states, int lanes, uint16_t*& out,
                               const int16_t* symbols, const uint8_t* index, size_t steps);

// May write 32 words beyond the last one made.
constexpr size_t kOutSlack = 32;

DecodeSteps decode_steps_scalar(int lanes);
EncodeSteps encode_steps_scalar(int lanes);
#if LATENTPACK_X86
size_t decode_steps_avx2(const Prepared&, uint32_t*, int, Reader&, const uint8_t*, size_t,
                         int16_t*);
size_t encode_steps_avx2(const Prepared&, uint32_t*, int, uint16_t*&, const int16_t*,
                         const uint8_t*, size_t);
size_t decode_steps_avx512(const Prepared&, uint32_t*, int, Reader&, const uint8_t*, size_t,
                           int16_t*);
// Of kMaxLanes lanes.
size_t decode_wide_avx512(const Prepared&, uint32_t*, Reader&, const uint8_t*, size_t, int16_t*);
size_t encode_steps_avx512(const Prepared&, uint32_t*, int, uint16_t*&, const int16_t*,
                           const uint8_t*, size_t);
#endif

// The fastest of the above for `lanes` lanes that uses nothing beyond `isa`.
DecodeSteps decode_steps_for(Isa isa, int lanes);
EncodeSteps encode_steps_for(Isa isa, int lanes, int precision);

// Copies the rows (and symbols, unless null) of coded rows, closed up, and returns how many they
// are; `lost` becomes true if a symbol that is left out is not 0. May write kCloseSlack more.
constexpr size_t kCloseSlack = 32;
size_t close_up(const Prepared&, Isa, const uint8_t* index, const int16_t* symbols, size_t n,
                uint8_t* rows, int16_t* values, bool& lost);
// The reverse, in place: the first `kept` of symbols[0 .. n) go to their places among zeros.
void spread(const Prepared&, Isa, const uint8_t* index, size_t n, size_t kept, int16_t* symbols);

enum class Status {
  kOk = 0,
  kBadIndex = 1,       // a row number beyond the tables
  kUncodedSymbol = 2,  // a symbol other than 0 in a row that is not coded
  kEmpty = 3,          // symbols wanted of an empty stream
  kTooShort = 4,       // the words end before the symbols
  kEscapeBits = 5,     // an escape longer than kMaxEscapeBits
  kEscapeValue = 6,    // an escape outside int16
  kNoMemory = 7,
};

// A stream being decoded. `words` and the count of lanes come from its head.
struct Decoding {
  uint32_t states[kMaxLanes];
  uint32_t lanes;  // 0: an empty stream
  uint32_t lane;   // the next symbol's
  uint64_t at;     // bytes of words consumed
};

// symbols[0 .. n) by rows index[0 .. n); `words` holds `bytes` bytes, an even number.
Status decode(Prepared&, Isa, Decoding&, const uint8_t* words, size_t bytes, const uint8_t* index,
              size_t n, int16_t* symbols);

// A stream and what is wanted of it next, the arguments of `decode`. What has been decoded is left
// behind: the fields move on.
struct Wanted {
  Decoding* state;
  const uint8_t* words;
  size_t bytes;
  const uint8_t* index;
  size_t n;
  int16_t* symbols;
};
// Decodes both: each waits for its tables while the other counts, where that is faster.
Status decode_two(Prepared&, Isa, Wanted&, Wanted&);

// Words in the encoder's order, then states. lanes = 0: by payload.
struct Encoded {
  uint32_t states[kMaxLanes];
  int lanes = 0;  // 0: nothing was coded, the stream is empty
  std::vector<uint16_t> words;
  size_t count = 0;
};
Status encode(const Prepared&, Isa, const int16_t* symbols, const uint8_t* index, size_t n,
              int lanes, Encoded&);

// Latents less means (null: zeros) to symbols and what the decoder makes of them; the index has been
// checked. And scales to rows, count <= 255. False if a difference or a scale is NaN.
bool quantise(const Prepared&, Isa, const float* y, const float* means, const uint8_t* index,
              size_t n, int16_t* symbols, float* y_hat);
bool rows_of(const float* scales, size_t n, const float* boundaries, size_t count, uint8_t* rows);

// The encoder's words into the reader's order; `to` needs no alignment.
void reverse_words(const uint16_t* words, size_t count, void* to);

}  // namespace latentpack
