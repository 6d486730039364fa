// Rows that are not coded: their symbols are taken out before coding and put back as zeros.
#include "rans.h"

#include <algorithm>

#if LATENTPACK_X86
// GCC 12 takes the deliberately undefined operands of its own intrinsics for mistakes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#define TARGET __attribute__((target("avx2,popcnt,avx512f,avx512bw,avx512vl,avx512vbmi2")))
#endif

namespace latentpack {
namespace {

// More rows than this are not worth a comparison each.
constexpr size_t kFewRows = 8;

size_t close_up_scalar(const Prepared& tables, const uint8_t* index, const int16_t* symbols,
                       size_t n, uint8_t* rows, int16_t* values, bool& lost) {
  size_t kept = 0;
  int others = 0;
  for (size_t i = 0; i < n; ++i) {
    const int keep = tables.coded[index[i]];
    rows[kept] = index[i];
    if (symbols) {
      values[kept] = symbols[i];
      others |= symbols[i] & (keep - 1);
    }
    kept += static_cast<size_t>(keep);
  }
  lost |= others != 0;
  return kept;
}

#if LATENTPACK_X86
TARGET inline __mmask32 coded_mask(const Prepared& tables, __m256i rows) {
  __mmask32 mask = ~__mmask32{0};
  for (uint8_t row : tables.uncoded) {
    mask &= _mm256_cmpneq_epi8_mask(rows, _mm256_set1_epi8(static_cast<char>(row)));
  }
  return mask;
}

TARGET inline __m256i load_rows(const uint8_t* index) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index));
}

// Whole groups of 32; returns how many symbols that were.
TARGET size_t close_up_avx512(const Prepared& tables, const uint8_t* index,
                              const int16_t* symbols, size_t n, uint8_t* rows, int16_t* values,
                              bool& lost, size_t& kept) {
  size_t i = 0;
  __mmask32 others = 0;
  for (; i + 32 <= n; i += 32) {
    const __m256i group = load_rows(index + i);
    const __mmask32 mask = coded_mask(tables, group);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(rows + kept),
                        _mm256_maskz_compress_epi8(mask, group));
    if (symbols) {
      const __m512i value = _mm512_loadu_si512(symbols + i);
      others |= _mm512_test_epi16_mask(value, value) & ~mask;
      _mm512_storeu_si512(values + kept, _mm512_maskz_compress_epi16(mask, value));
    }
    kept += static_cast<size_t>(_mm_popcnt_u32(mask));
  }
  lost |= others != 0;
  return i;
}

// The groups of 32 in front of `n`, a multiple of 32, from the last one to the first.
TARGET void spread_avx512(const Prepared& tables, const uint8_t* index, size_t n, size_t from,
                          int16_t* symbols) {
  for (size_t i = n; i > 0;) {
    i -= 32;
    const __mmask32 mask = coded_mask(tables, load_rows(index + i));
    from -= static_cast<size_t>(_mm_popcnt_u32(mask));
    _mm512_storeu_si512(symbols + i,
                        _mm512_maskz_expand_epi16(mask, _mm512_loadu_si512(symbols + from)));
  }
}
#endif

}  // namespace

size_t close_up(const Prepared& tables, Isa isa, const uint8_t* index, const int16_t* symbols,
                size_t n, uint8_t* rows, int16_t* values, bool& lost) {
  size_t done = 0, kept = 0;
#if LATENTPACK_X86
  if (isa >= Isa::kAvx512 && tables.uncoded.size() <= kFewRows) {
    done = close_up_avx512(tables, index, symbols, n, rows, values, lost, kept);
  }
#endif
  (void)isa;
  return kept + close_up_scalar(tables, index + done, symbols ? symbols + done : nullptr,
                                n - done, rows + kept, values ? values + kept : nullptr, lost);
}

void spread(const Prepared& tables, Isa isa, const uint8_t* index, size_t n, size_t kept,
            int16_t* symbols) {
  size_t whole = 0;
#if LATENTPACK_X86
  if (isa >= Isa::kAvx512 && tables.uncoded.size() <= kFewRows) whole = n / 32 * 32;
#endif
  (void)isa;
  for (size_t i = n; i > whole;) {
    --i;
    const int keep = tables.coded[index[i]];
    kept -= static_cast<size_t>(keep);
    symbols[i] = static_cast<int16_t>(symbols[kept] & -keep);
  }
#if LATENTPACK_X86
  if (whole) spread_avx512(tables, index, whole, kept, symbols);
#endif
}

}  // namespace latentpack
