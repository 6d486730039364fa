// The plane encoder's loops for AVX-512 (F, BW, VL, VBMI2).
#include "planes.h"

#if LATENTPACK_X86

#define PLANES_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi2,avx2,popcnt,bmi2")))
#include <immintrin.h>

#include "planes_encode_loops.h"

namespace latentpack::planes {
namespace {

constexpr uintptr_t kLine = 64;

// The entries of a table of 256 for 32 symbols, in eight registers of 32.
struct Lookup {
  __m512i part[8];
  PLANES_TARGET explicit Lookup(const uint16_t* table) {
    for (int i = 0; i < 8; ++i) part[i] = _mm512_loadu_si512(table + 32 * i);
  }
  PLANES_TARGET __attribute__((always_inline)) __m512i operator()(__m512i symbols,
                                                                  __mmask32 bit6,
                                                                  __mmask32 bit7) const {
    const __m512i a = _mm512_permutex2var_epi16(part[0], symbols, part[1]);
    const __m512i b = _mm512_permutex2var_epi16(part[2], symbols, part[3]);
    const __m512i c = _mm512_permutex2var_epi16(part[4], symbols, part[5]);
    const __m512i d = _mm512_permutex2var_epi16(part[6], symbols, part[7]);
    return _mm512_mask_blend_epi16(bit7, _mm512_mask_blend_epi16(bit6, a, b),
                                   _mm512_mask_blend_epi16(bit6, c, d));
  }
};

// Codes a symbol in each lane. x / freq by floats rounded down: at most one too small, because
// the quotient is below 2^20 and floats hold 24 bits.
PLANES_TARGET __attribute__((always_inline)) inline __m512i put(__m512i x, __m512i freq,
                                                                __m512i cum) {
  constexpr int down = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
  const __m512 quotient = _mm512_div_round_ps(_mm512_cvt_roundepu32_ps(x, down),
                                              _mm512_cvtepi32_ps(freq), down);
  const __m512i q = _mm512_cvttps_epi32(quotient);
  const __m512i rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(q, freq));
  const __m512i y = _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32(q, 12), rest), cum);
  const __mmask16 more = _mm512_cmpge_epu32_mask(rest, freq);
  return _mm512_mask_add_epi32(y, more, y, _mm512_sub_epi32(_mm512_set1_epi32(4096), freq));
}

PLANES_TARGET uint8_t* encode_steps(uint32_t* states, const Table& table, const uint8_t* symbols,
                                    size_t steps, uint8_t* out, Ahead ahead) {
  const Lookup freqs(table.freq), cums(table.cum);
  __m512i iota;
  {
    uint16_t values[32];
    for (uint16_t i = 0; i < 32; ++i) values[i] = i;
    iota = _mm512_loadu_si512(values);
  }
  __m512i x0 = _mm512_loadu_si512(states), x1 = _mm512_loadu_si512(states + 16);
  for (; steps > 0; --steps) {
    symbols -= 32;
    ask(ahead);
    const __m512i s = _mm512_cvtepu8_epi16(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(symbols)));
    const __mmask32 bit6 = _mm512_movepi16_mask(_mm512_slli_epi16(s, 9));
    const __mmask32 bit7 = _mm512_movepi16_mask(_mm512_slli_epi16(s, 8));
    const __m512i freq = freqs(s, bit6, bit7), cum = cums(s, bit6, bit7);
    const __m512i freq0 = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(freq));
    const __m512i freq1 = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(freq, 1));
    const __m512i cum0 = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(cum));
    const __m512i cum1 = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(cum, 1));
    const __mmask16 full0 = _mm512_cmpge_epu32_mask(x0, _mm512_slli_epi32(freq0, 20));
    const __mmask16 full1 = _mm512_cmpge_epu32_mask(x1, _mm512_slli_epi32(freq1, 20));
    const __m512i words = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(x0)),
                                             _mm512_cvtepi32_epi16(x1), 1);
    const __mmask32 full = static_cast<__mmask32>(full0) | static_cast<__mmask32>(full1) << 16;
    const int count = __builtin_popcount(full);
    // The words end at `out`: packed to the front, then turned to the end of the vector.
    const __m512i turn = _mm512_add_epi16(iota, _mm512_set1_epi16(static_cast<short>(count)));
    const __m512i packed = _mm512_maskz_compress_epi16(full, words);
    _mm512_storeu_si512(out - 64, _mm512_permutexvar_epi16(turn, packed));
    out -= 2 * count;
    x0 = put(_mm512_mask_srli_epi32(x0, full0, x0, 16), freq0, cum0);
    x1 = put(_mm512_mask_srli_epi32(x1, full1, x1, 16), freq1, cum1);
  }
  _mm512_storeu_si512(states, x0);
  _mm512_storeu_si512(states + 16, x1);
  return out;
}

PLANES_TARGET void split_bf16(const uint8_t* x, size_t n, uint8_t* e, uint8_t* r) {
  const __m512i sign = _mm512_set1_epi16(0x80), mantissa = _mm512_set1_epi16(0x7F);
  for (size_t i = 0; i < n; i += 32) {
    const __mmask32 there = n - i >= 32 ? ~__mmask32{0} : (__mmask32{1} << (n - i)) - 1;
    const __m512i u = _mm512_maskz_loadu_epi16(there, x + 2 * i);
    const __m512i exponent = _mm512_srli_epi16(u, 7);
    const __m512i rest = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(u, 8), sign),
                                         _mm512_and_si512(u, mantissa));
    _mm256_mask_storeu_epi8(e + i, there, _mm512_cvtepi16_epi8(exponent));
    _mm256_mask_storeu_epi8(r + i, there, _mm512_cvtepi16_epi8(rest));
  }
}

PLANES_TARGET void split_planes(const uint8_t* x, size_t n, int width, int layout,
                                uint8_t* const* planes) {
  if (layout == kFloat && width == 2) split_bf16(x, n, planes[0], planes[1]);
  else split(x, n, width, layout, planes);
}

PLANES_TARGET size_t to_nibbles(const uint8_t* exponents, size_t m, uint8_t top, uint8_t* pairs) {
  const __m512i tops = _mm512_set1_epi8(static_cast<char>(top)), last = _mm512_set1_epi8(15);
  size_t outside = 0;
  for (size_t i = 0; i < m; i += 64) {
    const __mmask64 there = m - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (m - i)) - 1;
    const __m512i exponent = _mm512_maskz_loadu_epi8(there, exponents + i);
    const __m512i distance = _mm512_sub_epi8(tops, exponent);
    const __mmask64 far = _mm512_cmpge_epu8_mask(distance, last);
    const __mmask64 zero = _mm512_testn_epi8_mask(exponent, exponent);
    outside += static_cast<size_t>(__builtin_popcountll(far & ~zero));
    const __m512i nibbles =
        _mm512_maskz_mov_epi8(there, _mm512_mask_mov_epi8(distance, far | zero, last));
    const __m512i both = _mm512_or_si512(nibbles, _mm512_srli_epi16(nibbles, 4));
    const __mmask32 bytes = m - i >= 63 ? ~__mmask32{0} : (__mmask32{1} << ((m - i + 1) / 2)) - 1;
    _mm256_mask_storeu_epi8(pairs + i / 2, bytes, _mm512_cvtepi16_epi8(both));
  }
  return outside;
}

PLANES_TARGET inline __m512i four_times(const uint8_t* sixteen) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
}

// 64 symbols at a time: bit s >> 4 & 7 of byte (s & 15 | s >> 3 & 16) of table.rare.
PLANES_TARGET void substitute(const Table& table, uint8_t* symbols, size_t n) {
  uint8_t bits[16];
  for (int i = 0; i < 16; ++i) bits[i] = static_cast<uint8_t>(1 << (i & 7));
  const __m512i lower = four_times(table.rare), upper = four_times(table.rare + 16);
  const __m512i bit = four_times(bits);
  const __m512i nibble = _mm512_set1_epi8(15);
  for (size_t i = 0; i < n; i += 64) {
    const __mmask64 there = n - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (n - i)) - 1;
    const __m512i s = _mm512_maskz_loadu_epi8(there, symbols + i);
    const __m512i column = _mm512_and_si512(s, nibble);
    const __m512i row = _mm512_mask_blend_epi8(_mm512_movepi8_mask(s),
                                               _mm512_shuffle_epi8(lower, column),
                                               _mm512_shuffle_epi8(upper, column));
    const __m512i which = _mm512_and_si512(_mm512_srli_epi16(s, 4), nibble);
    uint64_t rare = _mm512_mask_test_epi8_mask(there, row, _mm512_shuffle_epi8(bit, which));
    for (; rare; rare &= rare - 1) {
      uint8_t& symbol = symbols[i + static_cast<size_t>(__builtin_ctzll(rare))];
      symbol = table.instead[symbol];
    }
  }
}

PLANES_TARGET size_t differences(const uint8_t* a, const uint8_t* b, size_t m, uint16_t* at,
                                 size_t limit) {
  size_t found = 0;
  for (size_t i = 0; i < m; i += 64) {
    const __mmask64 there = m - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (m - i)) - 1;
    uint64_t differ = _mm512_mask_cmpneq_epi8_mask(
        there, _mm512_maskz_loadu_epi8(there, a + i), _mm512_maskz_loadu_epi8(there, b + i));
    for (; differ && found < limit; differ &= differ - 1)
      at[found++] = static_cast<uint16_t>(i + static_cast<size_t>(__builtin_ctzll(differ)));
  }
  return found;
}

PLANES_TARGET void copy_past_caches(uint8_t* to, const uint8_t* from, size_t n) {
  const size_t head = std::min(n, (kLine - reinterpret_cast<uintptr_t>(to) % kLine) % kLine);
  std::memcpy(to, from, head);
  size_t i = head;
  for (; i + kLine <= n; i += kLine)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_loadu_si512(from + i));
  std::memcpy(to + i, from + i, n - i);
  _mm_sfence();
}

}  // namespace

const EncodeLoops& avx512_encode_loops() {
  static const EncodeLoops loops = {split_planes, to_nibbles,   substitute,
                                    differences,  encode_steps, copy_past_caches};
  return loops;
}

}  // namespace latentpack::planes

#endif
