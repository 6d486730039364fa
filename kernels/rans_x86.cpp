// The step kernels for AVX2 (8 lanes per register) and AVX-512 (16 lanes per register).
//
// Each function is compiled for its own instruction set, so the file needs no compiler flags;
// rans.cpp calls one only where the processor has it.
#include "rans_x86.h"

#if LATENTPACK_X86
// GCC 12 takes the deliberately undefined operands of its own intrinsics for mistakes.
namespace latentpack {
namespace {

// For each set of lanes that need a word, lane by lane, which of the next words it gets; and the
// way back: which lanes' words come first. One byte per lane.
struct Permutations {
  uint64_t expand[256];
  uint64_t compress[256];
  constexpr Permutations() : expand(), compress() {
    for (int mask = 0; mask < 256; ++mask) {
      int next = 0;
      for (int lane = 0; lane < 8; ++lane) {
        if (!(mask >> lane & 1)) continue;
        expand[mask] |= static_cast<uint64_t>(next) << (8 * lane);
        compress[mask] |= static_cast<uint64_t>(lane) << (8 * next);
        ++next;
      }
    }
  }
};
constexpr Permutations kPermutations;

TARGET_AVX2 inline __m256i permutation(const uint64_t* table, unsigned mask) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(table + mask)));
}

TARGET_AVX2 inline __m256i load8(const uint8_t* at) {
  return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

template <int kGroups>
TARGET_AVX2 inline void load(__m256i (&x)[kGroups], const uint32_t* states) {
  for (int g = 0; g < kGroups; ++g) {
    x[g] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(states + 8 * g));
  }
}

template <int kGroups>
TARGET_AVX2 inline void store(uint32_t* states, const __m256i (&x)[kGroups]) {
  for (int g = 0; g < kGroups; ++g) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(states + 8 * g), x[g]);
  }
}

// Where eight lanes stand before they renormalise.
struct Found {
  __m256i value;  // of the symbol, above the lowest of the tables; 255 = escape
  __m256i x;
};

struct Lookup {
  const int *slots, *values, *entries;
  __m128i precision;
  __m256i mask;
};

TARGET_AVX2 inline Lookup lookup_of(const Prepared& tables) {
  return {reinterpret_cast<const int*>(tables.slots.data()),
          reinterpret_cast<const int*>(tables.values.data()),
          reinterpret_cast<const int*>(tables.entries.data()),
          _mm_cvtsi32_si128(tables.precision),
          _mm256_set1_epi32((1 << tables.precision) - 1)};
}

// One look-up in the large table, or two, of which only the first may miss the nearest cache.
template <bool kSlots>
TARGET_AVX2 inline Found find(const Lookup& in, __m256i x, const uint8_t* index) {
  const __m256i row =
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(index)));
  const __m256i slot = _mm256_and_si256(x, in.mask);
  const __m256i where = _mm256_or_si256(_mm256_sll_epi32(row, in.precision), slot);
  __m256i value, freq, bias;
  if (kSlots) {
    const __m256i low12 = _mm256_set1_epi32(0xFFF);
    const __m256i entry = look_up8(in.slots, where);
    value = _mm256_srli_epi32(entry, 24);
    freq = _mm256_and_si256(entry, low12);
    bias = _mm256_and_si256(_mm256_srli_epi32(entry, 12), low12);
  } else {
    value = _mm256_and_si256(_mm256_i32gather_epi32(in.values, where, 1),
                             _mm256_set1_epi32(0xFF));
    const __m256i key = _mm256_or_si256(_mm256_slli_epi32(row, 8), value);
    const __m256i entry = _mm256_i32gather_epi32(in.entries, key, 4);
    freq = _mm256_and_si256(entry, _mm256_set1_epi32(0xFFFF));
    bias = _mm256_sub_epi32(slot, _mm256_srli_epi32(entry, 16));
  }
  const __m256i high = _mm256_srl_epi32(x, in.precision);
  return {value, _mm256_add_epi32(_mm256_mullo_epi32(freq, high), bias)};
}

template <int kGroups>
TARGET_AVX2 inline bool any_escaped(const Found (&found)[kGroups]) {
  const __m256i escape = _mm256_set1_epi32(255);
  __m256i escaped = _mm256_cmpeq_epi32(found[0].value, escape);
  for (int g = 1; g < kGroups; ++g) {
    escaped = _mm256_or_si256(escaped, _mm256_cmpeq_epi32(found[g].value, escape));
  }
  return !_mm256_testz_si256(escaped, escaped);
}

TARGET_AVX2 inline void put8(int16_t* symbols, __m256i value, __m128i base) {
  const __m128i low = _mm256_castsi256_si128(value);
  const __m128i packed = _mm_packs_epi32(low, _mm256_extracti128_si256(value, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(symbols), _mm_add_epi16(packed, base));
}

template <int kGroups, bool kSlots>
TARGET_AVX2 size_t decode_avx2(const Prepared& tables, uint32_t* states, Reader& reader,
                               const uint8_t* index, size_t steps, int16_t* symbols) {
  const Lookup lookup = lookup_of(tables);
  const __m128i base = _mm_set1_epi16(static_cast<int16_t>(tables.base));
  const uint8_t* at = reader.at;
  const uint8_t* last = reader.limit - 16 * kGroups;
  __m256i x[kGroups];
  load(x, states);
  size_t done = 0;
  for (; done < steps && at <= last; ++done, index += 8 * kGroups, symbols += 8 * kGroups) {
    Found found[kGroups];
    for (int g = 0; g < kGroups; ++g) found[g] = find<kSlots>(lookup, x[g], index + 8 * g);
    if (any_escaped(found)) break;
    for (int g = 0; g < kGroups; ++g) {
      const __m256i y = found[g].x;
      const __m256i small =
          _mm256_cmpeq_epi32(_mm256_srli_epi32(y, 16), _mm256_setzero_si256());
      const unsigned needy =
          static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(small)));
      const __m256i words =
          _mm256_permutevar8x32_epi32(load8(at), permutation(kPermutations.expand, needy));
      at += 2 * static_cast<size_t>(_mm_popcnt_u32(needy));
      x[g] = _mm256_blendv_epi8(y, _mm256_or_si256(_mm256_slli_epi32(y, 16), words), small);
      put8(symbols + 8 * g, found[g].value, base);
    }
  }
  store(states, x);
  reader.at = at;
  return done;
}

// floor(x / freq) needs the high halves of eight 32-bit products, and perhaps one more.
TARGET_AVX2 inline __m256i high_product(__m256i x, __m256i y) {
  __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(x, y), 32);
  __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(y, 32));
  return _mm256_blend_epi32(even, odd, 0xAA);
}

// Lanes stand in reverse order in the registers, so that the words come out in the encoder's.
TARGET_AVX2 inline __m256i reversed(__m256i x) {
  return _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0));
}

TARGET_AVX2 inline __m256i keys8(const int16_t* symbols, const uint8_t* index, __m128i base) {
  __m128i value = _mm_loadu_si128(reinterpret_cast<const __m128i*>(symbols));
  __m128i column = _mm_min_epu16(_mm_sub_epi16(value, base), _mm_set1_epi16(255));
  __m128i row = _mm_unpacklo_epi8(
      _mm_setzero_si128(), _mm_loadl_epi64(reinterpret_cast<const __m128i*>(index)));
  return reversed(_mm256_cvtepu16_epi32(_mm_or_si128(row, column)));
}

template <int kGroups>
TARGET_AVX2 size_t encode_avx2(const Prepared& tables, uint32_t* states, uint16_t*& out,
                               const int16_t* symbols, const uint8_t* index, size_t steps) {
  const __m128i top = _mm_cvtsi32_si128(32 - tables.precision);
  const __m256i total = _mm256_set1_epi32(1 << tables.precision);
  const __m256i low16 = _mm256_set1_epi32(0xFFFF);
  const __m128i base = _mm_set1_epi16(static_cast<int16_t>(tables.base));
  const int* entries = reinterpret_cast<const int*>(tables.entries.data());
  const int* reciprocals = reinterpret_cast<const int*>(tables.reciprocals.data());
  uint16_t* to = out;
  __m256i x[kGroups];
  load(x, states);
  for (int g = 0; g < kGroups; ++g) x[g] = reversed(x[g]);
  size_t done = 0;
  for (; done < steps; ++done) {
    symbols -= 8 * kGroups;
    index -= 8 * kGroups;
    __m256i entry[kGroups], rcp[kGroups];
    __m256i escaped = _mm256_setzero_si256();
    for (int g = 0; g < kGroups; ++g) {
      __m256i key = keys8(symbols + 8 * g, index + 8 * g, base);
      entry[g] = _mm256_i32gather_epi32(entries, key, 4);
      rcp[g] = _mm256_i32gather_epi32(reciprocals, key, 4);
      escaped = _mm256_or_si256(escaped, _mm256_cmpeq_epi32(entry[g], _mm256_setzero_si256()));
    }
    if (!_mm256_testz_si256(escaped, escaped)) break;
    for (int g = kGroups - 1; g >= 0; --g) {
      __m256i freq = _mm256_and_si256(entry[g], low16);
      __m256i cum = _mm256_srli_epi32(entry[g], 16);
      __m256i stays = _mm256_cmpgt_epi32(freq, _mm256_srl_epi32(x[g], top));
      unsigned full = ~static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(stays)));
      __m256i words = _mm256_permutevar8x32_epi32(
          _mm256_and_si256(x[g], low16), permutation(kPermutations.compress, full & 255));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                       _mm_packus_epi32(_mm256_castsi256_si128(words),
                                        _mm256_extracti128_si256(words, 1)));
      to += static_cast<size_t>(_mm_popcnt_u32(full & 255));
      __m256i y = _mm256_blendv_epi8(_mm256_srli_epi32(x[g], 16), x[g], stays);
      __m256i q = high_product(y, rcp[g]);
      __m256i rest = _mm256_sub_epi32(y, _mm256_mullo_epi32(q, freq));
      __m256i exact = _mm256_cmpgt_epi32(freq, rest);
      q = _mm256_add_epi32(q, _mm256_add_epi32(exact, _mm256_set1_epi32(1)));
      x[g] = _mm256_add_epi32(_mm256_add_epi32(y, cum),
                              _mm256_mullo_epi32(q, _mm256_sub_epi32(total, freq)));
    }
  }
  for (int g = 0; g < kGroups; ++g) x[g] = reversed(x[g]);
  store(states, x);
  out = to;
  return done;
}

// Eight lanes per register here too: a step waits for its gather, and two gathers of eight
// come back sooner than one of sixteen.
template <int kGroups>
TARGET_AVX512 size_t decode_avx512(const Prepared& tables, uint32_t* states, Reader& reader,
                                   const uint8_t* index, size_t steps, int16_t* symbols) {
  const Lookup lookup = lookup_of(tables);
  const __m256i lower = _mm256_set1_epi32(static_cast<int>(kLower));
  const __m128i base = _mm_set1_epi16(static_cast<int16_t>(tables.base));
  const uint8_t* at = reader.at;
  const uint8_t* last = reader.limit - 16 * kGroups;
  __m256i x[kGroups];
  load(x, states);
  size_t done = 0;
  for (; done < steps && at <= last; ++done, index += 8 * kGroups, symbols += 8 * kGroups) {
    Found found[kGroups];
    for (int g = 0; g < kGroups; ++g) found[g] = find<false>(lookup, x[g], index + 8 * g);
    if (any_escaped(found)) break;
    for (int g = 0; g < kGroups; ++g) {
      const __m256i y = found[g].x;
      const __mmask8 needy = _mm256_cmplt_epu32_mask(y, lower);
      const __m256i words = _mm256_maskz_expand_epi32(needy, load8(at));
      at += 2 * static_cast<size_t>(_mm_popcnt_u32(needy));
      x[g] = _mm256_mask_or_epi32(y, needy, _mm256_slli_epi32(y, 16), words);
      put8(symbols + 8 * g, found[g].value, base);
    }
  }
  store(states, x);
  reader.at = at;
  return done;
}

TARGET_AVX512 inline __m512i reversed(__m512i x) {
  const __m512i order =
      _mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return _mm512_permutexvar_epi32(order, x);
}

TARGET_AVX512 inline __m512i keys16(const int16_t* symbols, const uint8_t* index, __m256i base) {
  const __m256i order =
      _mm256_setr_epi16(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  __m256i value = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(symbols));
  __m256i column = _mm256_min_epu16(_mm256_sub_epi16(value, base), _mm256_set1_epi16(255));
  __m256i row =
      _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(index)));
  __m256i key = _mm256_or_si256(_mm256_slli_epi16(row, 8), column);
  return _mm512_cvtepu16_epi32(_mm256_permutexvar_epi16(order, key));
}

// The quotient comes from floating point with everything rounded down: x < freq << (32 - P) with
// P >= 11, so it is below 2^21, and three roundings of at most 2^-23 of it take less than one.
TARGET_AVX512 inline __m512i rough_quotient(__m512i x, __m512i freq) {
  constexpr int kDown = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
  __m512 inverse = _mm512_div_round_ps(_mm512_set1_ps(1), _mm512_cvtepi32_ps(freq), kDown);
  __m512 product = _mm512_mul_round_ps(_mm512_cvt_roundepu32_ps(x, kDown), inverse, kDown);
  return _mm512_cvttps_epu32(product);
}

template <int kGroups>
TARGET_AVX512 size_t encode_avx512(const Prepared& tables, uint32_t* states, uint16_t*& out,
                                   const int16_t* symbols, const uint8_t* index, size_t steps) {
  const __m128i top = _mm_cvtsi32_si128(32 - tables.precision);
  const __m512i total = _mm512_set1_epi32(1 << tables.precision);
  const __m512i low16 = _mm512_set1_epi32(0xFFFF);
  const __m256i base = _mm256_set1_epi16(static_cast<int16_t>(tables.base));
  uint16_t* to = out;
  __m512i x[kGroups];
  for (int g = 0; g < kGroups; ++g) x[g] = reversed(_mm512_loadu_si512(states + 16 * g));
  size_t done = 0;
  for (; done < steps; ++done) {
    symbols -= 16 * kGroups;
    index -= 16 * kGroups;
    __m512i entry[kGroups];
    unsigned escaped = 0;
    for (int g = 0; g < kGroups; ++g) {
      __m512i key = keys16(symbols + 16 * g, index + 16 * g, base);
      entry[g] = _mm512_i32gather_epi32(key, tables.entries.data(), 4);
      escaped |= _mm512_testn_epi32_mask(entry[g], entry[g]);
    }
    if (escaped) break;
    for (int g = kGroups - 1; g >= 0; --g) {
      __m512i freq = _mm512_and_si512(entry[g], low16);
      __m512i cum = _mm512_srli_epi32(entry[g], 16);
      __mmask16 full = _mm512_cmpge_epu32_mask(_mm512_srl_epi32(x[g], top), freq);
      __m256i words = _mm256_maskz_compress_epi16(full, _mm512_cvtepi32_epi16(x[g]));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), words);
      to += static_cast<size_t>(_mm_popcnt_u32(full));
      __m512i y = _mm512_mask_srli_epi32(x[g], full, x[g], 16);
      __m512i q = rough_quotient(y, freq);
      __m512i rest = _mm512_sub_epi32(y, _mm512_mullo_epi32(q, freq));
      __m512i step = _mm512_sub_epi32(total, freq);
      __mmask16 more = _mm512_cmpge_epu32_mask(rest, freq);
      __m512i sum = _mm512_add_epi32(_mm512_add_epi32(y, cum), _mm512_mullo_epi32(q, step));
      x[g] = _mm512_mask_add_epi32(sum, more, sum, step);
    }
  }
  for (int g = 0; g < kGroups; ++g) _mm512_storeu_si512(states + 16 * g, reversed(x[g]));
  out = to;
  return done;
}

}  // namespace

size_t decode_steps_avx2(const Prepared& tables, uint32_t* states, int lanes, Reader& reader,
                         const uint8_t* index, size_t steps, int16_t* symbols) {
  auto kernel = lanes == 16 ? decode_avx2<2, false> : decode_avx2<4, true>;
  return lanes * kernel(tables, states, reader, index, steps, symbols);
}

size_t encode_steps_avx2(const Prepared& tables, uint32_t* states, int lanes, uint16_t*& out,
                         const int16_t* symbols, const uint8_t* index, size_t steps) {
  auto kernel = lanes == 8 ? encode_avx2<1> : lanes == 16 ? encode_avx2<2> : encode_avx2<4>;
  return lanes * kernel(tables, states, out, symbols, index, steps);
}


size_t decode_steps_avx512(const Prepared& tables, uint32_t* states, int lanes, Reader& reader,
                           const uint8_t* index, size_t steps, int16_t* symbols) {
  if (lanes == kMaxLanes) return decode_wide_avx512(tables, states, reader, index, steps, symbols);
  return static_cast<size_t>(lanes) * decode_avx512<2>(tables, states, reader, index, steps, symbols);
}

size_t encode_steps_avx512(const Prepared& tables, uint32_t* states, int lanes, uint16_t*& out,
                           const int16_t* symbols, const uint8_t* index, size_t steps) {
  auto kernel = lanes == 16 ? encode_avx512<1> : encode_avx512<2>;
  return lanes * kernel(tables, states, out, symbols, index, steps);
}

}  // namespace latentpack
#endif
