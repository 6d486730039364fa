// The plane encoder's loops for AVX-512 (F, BW, VL, VBMI2; whoever has VBMI2 has VBMI).
#include "planes.h"

#if LATENTPACK_X86

#define PLANES_TARGET \
  __attribute__((                                                                            \
      target("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,avx2,popcnt,bmi2")))
#include <immintrin.h>

#include "planes_encode_loops.h"

namespace latentpack::planes {
namespace {

// A byte of the table for each of 64 symbols.
PLANES_TARGET __attribute__((always_inline)) inline __m512i look_up(const uint8_t* table,
                                                                    __m512i symbols,
                                                                    __mmask64 upper) {
  const __m512i a = _mm512_permutex2var_epi8(_mm512_loadu_si512(table), symbols,
                                             _mm512_loadu_si512(table + 64));
  const __m512i b = _mm512_permutex2var_epi8(_mm512_loadu_si512(table + 128), symbols,
                                             _mm512_loadu_si512(table + 192));
  return _mm512_mask_blend_epi8(upper, a, b);
}

// What the steps share.
struct Orders {
  __m512i iota, evens, across;
  PLANES_TARGET Orders() {
    uint16_t values[32];
    for (uint16_t i = 0; i < 32; ++i) values[i] = i;
    iota = _mm512_loadu_si512(values);
    evens = _mm512_add_epi16(iota, iota);
    uint32_t order[16];
    for (uint32_t i = 0; i < 16; ++i) order[i] = 4 * (i & 3) + (i >> 2);
    across = _mm512_loadu_si512(order);
  }
};

// freq | cum << 12 of 64 symbols, 16 to a register.
struct Entries {
  __m512i of[4];
  PLANES_TARGET __attribute__((always_inline)) Entries(const Table& table, const uint8_t* at,
                                                       const Orders& orders) {
    // Interleaving bytes, then words works in quarters of a register: symbols 4 i + 16 q on come
    // to place 16 i + 4 q before.
    const __m512i symbols = _mm512_permutexvar_epi32(orders.across, _mm512_loadu_si512(at));
    const __mmask64 upper = _mm512_movepi8_mask(symbols);
    const __m512i low = look_up(table.entry[0], symbols, upper);
    const __m512i middle = look_up(table.entry[1], symbols, upper);
    const __m512i high = look_up(table.entry[2], symbols, upper);
    const __m512i zero = _mm512_setzero_si512();
    const __m512i low0 = _mm512_unpacklo_epi8(low, middle);
    const __m512i low1 = _mm512_unpackhi_epi8(low, middle);
    const __m512i high0 = _mm512_unpacklo_epi8(high, zero);
    const __m512i high1 = _mm512_unpackhi_epi8(high, zero);
    of[0] = _mm512_unpacklo_epi16(low0, high0);
    of[1] = _mm512_unpackhi_epi16(low0, high0);
    of[2] = _mm512_unpacklo_epi16(low1, high1);
    of[3] = _mm512_unpackhi_epi16(low1, high1);
  }
};

// Codes a symbol in each lane. x / freq by floats is at most one too small: 1 / freq is first
// found to 14 bits, then by a step of Newton's to 21 bits, a little below what it is; x is cut to
// 24 bits, and the quotient is below 2^20.
PLANES_TARGET __attribute__((always_inline)) inline __m512i put(__m512i x, __m512i entry) {
  const __m512i freq = _mm512_and_si512(entry, _mm512_set1_epi32(0xFFF));
  const __m512 divisor = _mm512_cvtepi32_ps(freq);
  const __m512 rough = _mm512_rcp14_ps(divisor);
  const __m512 error = _mm512_fnmadd_ps(divisor, rough, _mm512_set1_ps(1.0f - 0x1p-21f));
  const __m512 inverse = _mm512_fmadd_ps(rough, error, rough);
  const __m512 value = _mm512_cvt_roundepu32_ps(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
  const __m512i q = _mm512_cvttps_epi32(_mm512_mul_ps(value, inverse));
  const __m512i rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(q, freq));
  const __m512i y = _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32(q, 12), rest),
                                     _mm512_srli_epi32(entry, 12));
  const __mmask16 more = _mm512_cmpge_epu32_mask(rest, freq);
  return _mm512_mask_add_epi32(y, more, y, _mm512_sub_epi32(_mm512_set1_epi32(4096), freq));
}

// One stream in registers.
struct Lanes {
  __m512i x0, x1;
  uint8_t* out;

  PLANES_TARGET __attribute__((always_inline)) void step(__m512i entry0, __m512i entry1,
                                                         const Orders& orders) {
    const __mmask16 full0 = _mm512_cmpge_epu32_mask(x0, _mm512_slli_epi32(entry0, 20));
    const __mmask16 full1 = _mm512_cmpge_epu32_mask(x1, _mm512_slli_epi32(entry1, 20));
    const __m512i words = _mm512_permutex2var_epi16(x0, orders.evens, x1);
    const __mmask32 full = static_cast<__mmask32>(full0) | static_cast<__mmask32>(full1) << 16;
    const int count = __builtin_popcount(full);
    // The words end at `out`: packed to the front, then turned to the end of the vector.
    const __m512i turn =
        _mm512_add_epi16(orders.iota, _mm512_set1_epi16(static_cast<short>(count)));
    const __m512i packed = _mm512_maskz_compress_epi16(full, words);
    _mm512_storeu_si512(out - 64, _mm512_permutexvar_epi16(turn, packed));
    out -= 2 * count;
    x0 = put(_mm512_mask_srli_epi32(x0, full0, x0, 16), entry0);
    x1 = put(_mm512_mask_srli_epi32(x1, full1, x1, 16), entry1);
  }
};

// Two steps of each stream in turn: the divisions of one fill the pauses of the others.
template <int K>
PLANES_TARGET void encode_together(EncodeStream* const* streams) {
  const Orders orders;
  Lanes lanes[K];
  const uint8_t* symbols[K];
  Ahead ahead[K];
  size_t steps = streams[0]->steps;
  for (int k = 0; k < K; ++k) {
    EncodeStream& stream = *streams[k];
    lanes[k] = {_mm512_loadu_si512(stream.states), _mm512_loadu_si512(stream.states + 16),
                stream.out};
    symbols[k] = stream.symbols;
    ahead[k] = stream.ahead;
    steps = std::min(steps, stream.steps);
  }
  for (size_t i = 0; i < steps; i += 2) {
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) {
      ask(ahead[k]);
      ask(ahead[k]);
      symbols[k] -= 2 * kMaxLanes;
      const Entries entries(*streams[k]->table, symbols[k], orders);
      lanes[k].step(entries.of[2], entries.of[3], orders);
      lanes[k].step(entries.of[0], entries.of[1], orders);
    }
  }
  for (int k = 0; k < K; ++k) {
    EncodeStream& stream = *streams[k];
    _mm512_storeu_si512(stream.states, lanes[k].x0);
    _mm512_storeu_si512(stream.states + 16, lanes[k].x1);
    stream.out = lanes[k].out;
    stream.symbols = symbols[k];
    stream.ahead = ahead[k];
    stream.steps -= steps;
  }
}

PLANES_TARGET void encode_steps(EncodeStream* const* streams, int count) {
  switch (count) {
    case 1: return encode_together<1>(streams);
    case 2: return encode_together<2>(streams);
    case 3: return encode_together<3>(streams);
    case 4: return encode_together<4>(streams);
  }
}

PLANES_TARGET inline __m512i every(int step, int rows) {
  uint8_t at[64];
  for (int i = 0; i < 64; ++i) at[i] = static_cast<uint8_t>(step * (i % rows) + i / rows);
  return _mm512_loadu_si512(at);
}

// 128 nibbles, one a byte, to 64 pairs.
PLANES_TARGET __attribute__((always_inline)) inline __m512i pair_up(__m512i a, __m512i b,
                                                                    __m512i even) {
  return _mm512_permutex2var_epi8(_mm512_or_si512(a, _mm512_srli_epi16(a, 4)), even,
                                  _mm512_or_si512(b, _mm512_srli_epi16(b, 4)));
}

constexpr size_t kTurn = 128;  // elements of a turn of these loops

// The four bytes of 64 elements, lowest first.
struct FourBytes {
  __m512i low = every(4, 32), high = _mm512_add_epi8(low, _mm512_set1_epi8(2));
  PLANES_TARGET FourBytes() {}
  PLANES_TARGET __attribute__((always_inline)) void operator()(const uint8_t* at,
                                                               __m512i* bytes) const {
    const __m512i a = _mm512_loadu_si512(at), b = _mm512_loadu_si512(at + 64);
    const __m512i c = _mm512_loadu_si512(at + 128), d = _mm512_loadu_si512(at + 192);
    const __m512i low0 = _mm512_permutex2var_epi8(a, low, b);
    const __m512i low1 = _mm512_permutex2var_epi8(c, low, d);
    const __m512i high0 = _mm512_permutex2var_epi8(a, high, b);
    const __m512i high1 = _mm512_permutex2var_epi8(c, high, d);
    bytes[0] = _mm512_shuffle_i64x2(low0, low1, 0x44);
    bytes[1] = _mm512_shuffle_i64x2(low0, low1, 0xEE);
    bytes[2] = _mm512_shuffle_i64x2(high0, high1, 0x44);
    bytes[3] = _mm512_shuffle_i64x2(high0, high1, 0xEE);
  }
};

PLANES_TARGET void split_pairs(const uint8_t* x, size_t n, uint8_t* e, uint8_t* r) {
  const __m512i even = every(2, 64), seven = _mm512_set1_epi8(7), eight = _mm512_set1_epi8(8);
  for (size_t i = 0; i < n; i += kTurn) {
    ask_before(x + i, kTurn);
    __m512i exponents[2], rests[2];
    for (size_t h = 0; h < 2; ++h) {
      const __m512i b = _mm512_loadu_si512(x + i + 64 * h);
      exponents[h] = _mm512_and_si512(_mm512_srli_epi16(b, 3), _mm512_set1_epi8(15));
      // b >> 4 & 8 | b & 7
      rests[h] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(b, 4), eight),
                                 _mm512_and_si512(b, seven));
    }
    _mm512_storeu_si512(e + i / 2, pair_up(exponents[0], exponents[1], even));
    _mm512_storeu_si512(r + i / 2, pair_up(rests[0], rests[1], even));
  }
}

PLANES_TARGET void split_twos(const uint8_t* x, size_t n, uint8_t* const* planes) {
  const __m512i even = every(2, 64), odd = _mm512_add_epi8(even, _mm512_set1_epi8(1));
  for (size_t i = 0; i < n; i += 64) {
    ask_before(x + 2 * i, 128);
    const __m512i a = _mm512_loadu_si512(x + 2 * i), b = _mm512_loadu_si512(x + 2 * i + 64);
    _mm512_storeu_si512(planes[0] + i, _mm512_permutex2var_epi8(a, odd, b));
    _mm512_storeu_si512(planes[1] + i, _mm512_permutex2var_epi8(a, even, b));
  }
}

PLANES_TARGET void split_fours(const uint8_t* x, size_t n, uint8_t* const* planes) {
  const FourBytes four;
  for (size_t i = 0; i < n; i += 64) {
    ask_before(x + 4 * i, 256);
    __m512i bytes[4];
    four(x + 4 * i, bytes);
    for (int p = 0; p < 4; ++p) _mm512_storeu_si512(planes[3 - p] + i, bytes[p]);
  }
}

PLANES_TARGET void split_planes(const uint8_t* x, size_t n, int width, int layout,
                                uint8_t* const* planes) {
  const size_t whole = n / kTurn * kTurn;
  if (layout == kNibbles) split_pairs(x, whole, planes[0], planes[1]);
  else if (layout == kBytePlanes && width == 2) split_twos(x, whole, planes);
  else if (layout == kBytePlanes && width == 4) split_fours(x, whole, planes);
  else return split(x, n, width, layout, planes);
  uint8_t* rest[4];
  for (int p = 0; p < plane_count(layout, width); ++p)
    rest[p] = planes[p] + plane_bytes(layout, whole);
  split(x + whole * width, n - whole, width, layout, rest);
}

// 64 elements of layout FLOAT, from their upper and second bytes.
struct Floats {
  __m512i tops, last, one;
  uint16_t* outside;
  size_t found, limit;

  PLANES_TARGET Floats(uint8_t top, uint16_t* outside, size_t limit)
      : tops(_mm512_set1_epi8(static_cast<char>(top))), last(_mm512_set1_epi8(15)),
        one(_mm512_set1_epi8(1)), outside(outside), found(0), limit(limit) {}

  PLANES_TARGET __attribute__((always_inline)) static __m512i rests(__m512i upper,
                                                                    __m512i second) {
    return _mm512_ternarylogic_epi32(_mm512_set1_epi8(-128), upper, second, 0xCA);
  }

  // Window nibbles, one a byte; positions outside of the window are noted.
  PLANES_TARGET __attribute__((always_inline)) __m512i nibbles(__m512i upper, __m512i second,
                                                               size_t first) {
    const __m512i exponents = _mm512_ternarylogic_epi32(
        _mm512_add_epi8(upper, upper), _mm512_srli_epi16(second, 7), one, 0xF8);
    const __m512i distance = _mm512_sub_epi8(tops, exponents);
    const __mmask64 there = _mm512_test_epi8_mask(exponents, exponents);
    uint64_t far = _mm512_mask_cmpge_epu8_mask(there, distance, last);
    for (; __builtin_expect(far != 0, 0) && found < limit; far &= far - 1)
      outside[found++] =
          static_cast<uint16_t>(first + static_cast<size_t>(__builtin_ctzll(far)));
    return _mm512_mask_min_epu8(last, there, distance, last);
  }
};

PLANES_TARGET size_t window_of_bf16(const uint8_t* x, size_t n, uint8_t top, uint8_t* pairs,
                                    uint8_t* rests, uint16_t* outside, size_t limit) {
  const __m512i even = every(2, 64), odd = _mm512_add_epi8(even, _mm512_set1_epi8(1));
  Floats floats(top, outside, limit);
  for (size_t i = 0; i + kTurn <= n; i += kTurn) {
    ask_before(x + 2 * i, 2 * kTurn);
    __m512i nibbles[2];
    for (size_t h = 0; h < 2; ++h) {
      const uint8_t* at = x + 2 * i + 128 * h;
      const __m512i a = _mm512_loadu_si512(at), b = _mm512_loadu_si512(at + 64);
      const __m512i upper = _mm512_permutex2var_epi8(a, odd, b);
      const __m512i second = _mm512_permutex2var_epi8(a, even, b);
      _mm512_storeu_si512(rests + i + 64 * h, Floats::rests(upper, second));
      nibbles[h] = floats.nibbles(upper, second, i + 64 * h);
    }
    _mm512_storeu_si512(pairs + i / 2, pair_up(nibbles[0], nibbles[1], even));
  }
  return floats.found;
}

PLANES_TARGET size_t window_of_fp32(const uint8_t* x, size_t n, uint8_t top, uint8_t* pairs,
                                    uint8_t* const* planes, uint16_t* outside, size_t limit) {
  const __m512i even = every(2, 64);
  const FourBytes four;
  Floats floats(top, outside, limit);
  for (size_t i = 0; i + kTurn <= n; i += kTurn) {
    ask_before(x + 4 * i, 4 * kTurn);
    __m512i nibbles[2];
    for (size_t h = 0; h < 2; ++h) {
      const uint8_t* at = x + 4 * i + 256 * h;
      const size_t to = i + 64 * h;
      __m512i bytes[4];
      four(at, bytes);
      _mm512_storeu_si512(planes[3] + to, bytes[0]);
      _mm512_storeu_si512(planes[2] + to, bytes[1]);
      const __m512i second = bytes[2], upper = bytes[3];
      _mm512_storeu_si512(planes[1] + to, Floats::rests(upper, second));
      nibbles[h] = floats.nibbles(upper, second, to);
    }
    _mm512_storeu_si512(pairs + i / 2, pair_up(nibbles[0], nibbles[1], even));
  }
  return floats.found;
}

PLANES_TARGET size_t split_window_512(const uint8_t* x, size_t n, int width, uint8_t top,
                                      uint8_t* pairs, uint8_t* const* planes, uint16_t* outside,
                                      size_t limit) {
  const size_t found = width == 2
                           ? window_of_bf16(x, n, top, pairs, planes[1], outside, limit)
                           : window_of_fp32(x, n, top, pairs, planes, outside, limit);
  return split_window_from(x, n / kTurn * kTurn, n, width, top, pairs, planes, outside, found, limit);
}

PLANES_TARGET size_t substitute(const Table& table, uint8_t* symbols, size_t n, uint16_t* at,
                                uint8_t* old, size_t limit) {
  uint8_t rare[256];  // 255 where the frequency is 0
  for (int s = 0; s < 256; s += 32) {
    const __m512i freq = _mm512_loadu_si512(table.freq + s);
    const __m256i zero = _mm256_movm_epi8(_mm512_testn_epi16_mask(freq, freq));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(rare + s), zero);
  }
  size_t found = 0;
  for (size_t i = 0; i < n; i += 64) {
    const __mmask64 there = n - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (n - i)) - 1;
    const __m512i s = _mm512_maskz_loadu_epi8(there, symbols + i);
    const __m512i flags = look_up(rare, s, _mm512_movepi8_mask(s));
    uint64_t which = _mm512_movepi8_mask(flags) & there;
    for (; which; which &= which - 1)
      found = replace_rare(table, symbols, i + static_cast<size_t>(__builtin_ctzll(which)), at, old,
                           found, limit);
  }
  return found;
}

PLANES_TARGET void copy_past_caches(uint8_t* to, const uint8_t* from, size_t bytes) {
  size_t i = stream_to_line(to, from, bytes);
  for (; i + kLine <= bytes; i += kLine)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_loadu_si512(from + i));
  stream_pieces(to + i, from + i, bytes - i);
}

void fence() { _mm_sfence(); }

}  // namespace

const EncodeLoops& avx512_encode_loops() {
  static const EncodeLoops loops = {split_planes, split_window_512, substitute,
                                    encode_steps, copy_past_caches,       fence};
  return loops;
}

}  // namespace latentpack::planes

#endif
