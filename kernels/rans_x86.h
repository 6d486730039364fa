// What the rANS coders for x86 share.
#pragma once

#include "rans.h"

#if LATENTPACK_X86

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#define TARGET_AVX2 __attribute__((target("avx2,popcnt")))
#define TARGET_AVX512 \
  __attribute__((target("avx2,popcnt,avx512f,avx512bw,avx512vl,avx512vbmi2")))

namespace latentpack {

// table[where] of eight lanes. A gather instruction does the same, slower on many processors.
TARGET_AVX2 inline __m256i look_up8(const int* table, __m256i where) {
  const auto four = [&](__m128i i) TARGET_AVX2 __attribute__((always_inline)) {
    const auto low = static_cast<uint64_t>(_mm_cvtsi128_si64(i));
    const auto high = static_cast<uint64_t>(_mm_extract_epi64(i, 1));
    __m128i r = _mm_cvtsi32_si128(table[static_cast<uint32_t>(low)]);
    r = _mm_insert_epi32(r, table[low >> 32], 1);
    r = _mm_insert_epi32(r, table[static_cast<uint32_t>(high)], 2);
    return _mm_insert_epi32(r, table[high >> 32], 3);
  };
  const __m128i low = four(_mm256_castsi256_si128(where));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(low),
                                 four(_mm256_extracti128_si256(where, 1)), 1);
}

}  // namespace latentpack
#endif
