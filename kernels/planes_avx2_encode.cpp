// The plane encoder's loops for AVX2.
#include "planes.h"

#if LATENTPACK_X86

#define PLANES_TARGET __attribute__((target("avx2,popcnt,bmi2")))
#include <immintrin.h>

#include "planes_encode_loops.h"

namespace latentpack::planes {
namespace {

constexpr size_t kTurn = 64;  // elements of a turn of the loops that split

// 32 elements of layout FLOAT, from their upper and second bytes.
struct Floats {
  __m256i tops, last;
  uint16_t* outside;
  size_t found, limit;

  PLANES_TARGET Floats(uint8_t top, uint16_t* outside, size_t limit)
      : tops(_mm256_set1_epi8(static_cast<char>(top))), last(_mm256_set1_epi8(15)),
        outside(outside), found(0), limit(limit) {}

  PLANES_TARGET __attribute__((always_inline)) static __m256i rests(__m256i upper,
                                                                    __m256i second) {
    const __m256i sign = _mm256_set1_epi8(-128);
    return _mm256_or_si256(_mm256_and_si256(upper, sign), _mm256_andnot_si256(sign, second));
  }

  // Window nibbles, one a byte; positions outside of the window are noted.
  PLANES_TARGET __attribute__((always_inline)) __m256i nibbles(__m256i upper, __m256i second,
                                                               size_t first) {
    const __m256i lowest = _mm256_and_si256(_mm256_srli_epi16(second, 7), _mm256_set1_epi8(1));
    const __m256i exponents = _mm256_or_si256(_mm256_add_epi8(upper, upper), lowest);
    const __m256i near = _mm256_min_epu8(_mm256_sub_epi8(tops, exponents), last);
    const __m256i zero = _mm256_cmpeq_epi8(exponents, _mm256_setzero_si256());
    auto far = static_cast<uint32_t>(
        _mm256_movemask_epi8(_mm256_andnot_si256(zero, _mm256_cmpeq_epi8(near, last))));
    for (; __builtin_expect(far != 0, 0) && found < limit; far &= far - 1)
      outside[found++] = static_cast<uint16_t>(first + static_cast<size_t>(__builtin_ctz(far)));
    return _mm256_or_si256(near, _mm256_and_si256(zero, last));
  }
};

// 64 nibbles, one a byte, to 32 pairs.
PLANES_TARGET __attribute__((always_inline)) inline __m256i pair_up(__m256i a, __m256i b) {
  const __m256i weights = _mm256_set1_epi16(0x1001);
  const __m256i both =
      _mm256_packus_epi16(_mm256_maddubs_epi16(a, weights), _mm256_maddubs_epi16(b, weights));
  return _mm256_permute4x64_epi64(both, 0xD8);
}

PLANES_TARGET __attribute__((always_inline)) inline __m256i load(const uint8_t* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}
PLANES_TARGET __attribute__((always_inline)) inline void store(uint8_t* at, __m256i bytes) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), bytes);
}

PLANES_TARGET size_t window_of_bf16(const uint8_t* x, size_t n, uint8_t top, uint8_t* pairs,
                                    uint8_t* rests, uint16_t* outside, size_t limit) {
  const __m256i low = _mm256_set1_epi16(0xFF);
  Floats floats(top, outside, limit);
  for (size_t i = 0; i + kTurn <= n; i += kTurn) {
    ask_before(x + 2 * i, 2 * kTurn);
    __m256i nibbles[2];
    for (size_t h = 0; h < 2; ++h) {
      const uint8_t* at = x + 2 * i + 64 * h;
      const __m256i a = load(at), b = load(at + 32);
      const __m256i upper = _mm256_permute4x64_epi64(
          _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8)), 0xD8);
      const __m256i second = _mm256_permute4x64_epi64(
          _mm256_packus_epi16(_mm256_and_si256(a, low), _mm256_and_si256(b, low)), 0xD8);
      store(rests + i + 32 * h, Floats::rests(upper, second));
      nibbles[h] = floats.nibbles(upper, second, i + 32 * h);
    }
    store(pairs + i / 2, pair_up(nibbles[0], nibbles[1]));
  }
  return floats.found;
}

// Of 8 elements of 4 bytes, bytes 0 of all, then bytes 1 and so on.
PLANES_TARGET __attribute__((always_inline)) inline __m256i by_byte(__m256i elements) {
  const __m256i within = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15,  //
                                          0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(elements, within),
                                     _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

PLANES_TARGET size_t window_of_fp32(const uint8_t* x, size_t n, uint8_t top, uint8_t* pairs,
                                    uint8_t* const* planes, uint16_t* outside, size_t limit) {
  Floats floats(top, outside, limit);
  for (size_t i = 0; i + kTurn <= n; i += kTurn) {
    ask_before(x + 4 * i, 4 * kTurn);
    __m256i nibbles[2];
    for (size_t h = 0; h < 2; ++h) {
      const uint8_t* at = x + 4 * i + 128 * h;
      const size_t to = i + 32 * h;
      const __m256i a = by_byte(load(at)), b = by_byte(load(at + 32));
      const __m256i c = by_byte(load(at + 64)), d = by_byte(load(at + 96));
      const __m256i even0 = _mm256_unpacklo_epi64(a, b), even1 = _mm256_unpacklo_epi64(c, d);
      const __m256i odd0 = _mm256_unpackhi_epi64(a, b), odd1 = _mm256_unpackhi_epi64(c, d);
      store(planes[3] + to, _mm256_permute2x128_si256(even0, even1, 0x20));
      store(planes[2] + to, _mm256_permute2x128_si256(odd0, odd1, 0x20));
      const __m256i second = _mm256_permute2x128_si256(even0, even1, 0x31);
      const __m256i upper = _mm256_permute2x128_si256(odd0, odd1, 0x31);
      store(planes[1] + to, Floats::rests(upper, second));
      nibbles[h] = floats.nibbles(upper, second, to);
    }
    store(pairs + i / 2, pair_up(nibbles[0], nibbles[1]));
  }
  return floats.found;
}

PLANES_TARGET size_t split_window_256(const uint8_t* x, size_t n, int width, uint8_t top,
                                      uint8_t* pairs, uint8_t* const* planes, uint16_t* outside,
                                      size_t limit) {
  const size_t found = width == 2
                           ? window_of_bf16(x, n, top, pairs, planes[1], outside, limit)
                           : window_of_fp32(x, n, top, pairs, planes, outside, limit);
  return split_window_from(x, n / kTurn * kTurn, n, width, top, pairs, planes, outside, found,
                           limit);
}

PLANES_TARGET inline __m256i twice(const uint8_t* sixteen) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
}

// 32 symbols at a time: bit s >> 4 & 7 of byte (s & 15 | s >> 3 & 16) of table.rare.
PLANES_TARGET size_t substitute(const Table& table, uint8_t* symbols, size_t n, uint16_t* at,
                                uint8_t* old, size_t limit) {
  uint8_t bits[16];
  for (int i = 0; i < 16; ++i) bits[i] = static_cast<uint8_t>(1 << (i & 7));
  const __m256i lower = twice(table.rare), upper = twice(table.rare + 16), bit = twice(bits);
  const __m256i nibble = _mm256_set1_epi8(15);
  size_t found = 0, i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m256i s = load(symbols + i);
    const __m256i column = _mm256_and_si256(s, nibble);
    const __m256i row = _mm256_blendv_epi8(_mm256_shuffle_epi8(lower, column),
                                           _mm256_shuffle_epi8(upper, column), s);
    const __m256i which = _mm256_and_si256(_mm256_srli_epi16(s, 4), nibble);
    const __m256i there = _mm256_and_si256(row, _mm256_shuffle_epi8(bit, which));
    auto rare = ~static_cast<uint32_t>(
        _mm256_movemask_epi8(_mm256_cmpeq_epi8(there, _mm256_setzero_si256())));
    for (; rare; rare &= rare - 1)
      found = replace_rare(table, symbols, i + static_cast<size_t>(__builtin_ctz(rare)), at, old,
                           found, limit);
  }
  for (; i < n; ++i)
    if (!table.freq[symbols[i]]) found = replace_rare(table, symbols, i, at, old, found, limit);
  return found;
}

// [mask] where the words of 8 lanes go that are in the mask: to the end, in order.
struct Compress {
  alignas(16) uint8_t to_end[256][16];
  Compress() {
    std::memset(to_end, 0x80, sizeof to_end);
    for (int mask = 0; mask < 256; ++mask) {
      int at = 16 - 2 * __builtin_popcount(static_cast<unsigned>(mask));
      for (int lane = 0; lane < 8; ++lane) {
        if (!(mask >> lane & 1)) continue;
        to_end[mask][at++] = static_cast<uint8_t>(2 * lane);
        to_end[mask][at++] = static_cast<uint8_t>(2 * lane + 1);
      }
    }
  }
};

// One stream in registers; entries are freq | cum << 16.
struct Lanes {
  __m256i x[4];
  uint8_t* out;

  // freq | cum << 16 of 8 symbols. A gather instruction is no faster.
  PLANES_TARGET __attribute__((always_inline)) static __m256i look_up(const uint32_t* entries,
                                                                      const uint8_t* symbols) {
    return _mm256_setr_epi32(
        static_cast<int>(entries[symbols[0]]), static_cast<int>(entries[symbols[1]]),
        static_cast<int>(entries[symbols[2]]), static_cast<int>(entries[symbols[3]]),
        static_cast<int>(entries[symbols[4]]), static_cast<int>(entries[symbols[5]]),
        static_cast<int>(entries[symbols[6]]), static_cast<int>(entries[symbols[7]]));
  }

  // x / freq by floats: at most one too small, because the quotient is below 2^20, floats hold
  // 24 bits, and all is made smaller by more than four roundings can make it larger.
  PLANES_TARGET __attribute__((always_inline)) static __m256i put(__m256i x, __m256i freq,
                                                                  __m256i cum) {
    const __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(x, 16));
    const __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(0xFFFF)));
    const __m256 less = _mm256_set1_ps(1.0f - 0x1p-22f);
    const __m256 value =
        _mm256_mul_ps(_mm256_add_ps(_mm256_mul_ps(high, _mm256_set1_ps(65536.0f)), low), less);
    const __m256i q = _mm256_cvttps_epi32(_mm256_div_ps(value, _mm256_cvtepi32_ps(freq)));
    const __m256i rest = _mm256_sub_epi32(x, _mm256_mullo_epi32(q, freq));
    const __m256i y = _mm256_add_epi32(_mm256_add_epi32(_mm256_slli_epi32(q, 12), rest), cum);
    const __m256i enough = _mm256_cmpgt_epi32(freq, rest);
    return _mm256_add_epi32(y, _mm256_andnot_si256(enough, _mm256_sub_epi32(
                                                               _mm256_set1_epi32(4096), freq)));
  }

  PLANES_TARGET __attribute__((always_inline)) void step(const Compress& compress,
                                                         const uint32_t* entries,
                                                         const uint8_t* symbols) {
    const __m256i low16 = _mm256_set1_epi32(0xFFFF);
    for (int g = 2; g >= 0; g -= 2) {  // words go downwards: the last lanes first
      const __m256i entry0 = look_up(entries, symbols + 8 * g);
      const __m256i entry1 = look_up(entries, symbols + 8 * g + 8);
      const __m256i freq0 = _mm256_and_si256(entry0, low16);
      const __m256i freq1 = _mm256_and_si256(entry1, low16);
      const __m256i whole0 = _mm256_cmpgt_epi32(freq0, _mm256_srli_epi32(x[g], 20));
      const __m256i whole1 = _mm256_cmpgt_epi32(freq1, _mm256_srli_epi32(x[g + 1], 20));
      const __m256i words = _mm256_permute4x64_epi64(
          _mm256_packus_epi32(_mm256_and_si256(x[g], low16), _mm256_and_si256(x[g + 1], low16)),
          0xD8);
      emit(compress, _mm256_extracti128_si256(words, 1), whole1);
      emit(compress, _mm256_castsi256_si128(words), whole0);
      x[g] = put(_mm256_blendv_epi8(_mm256_srli_epi32(x[g], 16), x[g], whole0), freq0,
                 _mm256_srli_epi32(entry0, 16));
      x[g + 1] = put(_mm256_blendv_epi8(_mm256_srli_epi32(x[g + 1], 16), x[g + 1], whole1), freq1,
                     _mm256_srli_epi32(entry1, 16));
    }
  }

  PLANES_TARGET __attribute__((always_inline)) void emit(const Compress& compress, __m128i words,
                                                         __m256i whole) {
    const int mask = _mm256_movemask_ps(_mm256_castsi256_ps(whole)) ^ 0xFF;
    const __m128i order =
        _mm_load_si128(reinterpret_cast<const __m128i*>(compress.to_end[mask]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out - 16), _mm_shuffle_epi8(words, order));
    out -= 2 * __builtin_popcount(static_cast<unsigned>(mask));
  }
};

PLANES_TARGET void encode_one(EncodeStream& stream) {
  static const Compress compress;
  uint32_t entries[256];
  for (int s = 0; s < 256; ++s)
    entries[s] = stream.table->freq[s] | uint32_t{stream.table->cum[s]} << 16;
  Lanes lanes;
  for (int g = 0; g < 4; ++g) lanes.x[g] = load(reinterpret_cast<uint8_t*>(stream.states + 8 * g));
  lanes.out = stream.out;
  for (; stream.steps; --stream.steps) {
    ask(stream.ahead);
    stream.symbols -= kMaxLanes;
    lanes.step(compress, entries, stream.symbols);
  }
  for (int g = 0; g < 4; ++g) store(reinterpret_cast<uint8_t*>(stream.states + 8 * g), lanes.x[g]);
  stream.out = lanes.out;
}

void encode_steps(EncodeStream* const* streams, int count) {
  for (int k = 0; k < count; ++k) encode_one(*streams[k]);
}

PLANES_TARGET void copy_past_caches(uint8_t* to, const uint8_t* from, size_t bytes) {
  size_t i = stream_to_line(to, from, bytes);
  for (; i + kLine <= bytes; i += kLine) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), load(from + i));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i + 32), load(from + i + 32));
  }
  stream_pieces(to + i, from + i, bytes - i);
}

void fence() { _mm_sfence(); }

}  // namespace

const EncodeLoops& avx2_encode_loops() {
  static const EncodeLoops loops = {split,        split_window_256, substitute,
                                    encode_steps, copy_past_caches,       fence};
  return loops;
}

}  // namespace latentpack::planes

#endif
