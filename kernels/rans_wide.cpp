// Streams of 16 and 32 lanes on AVX-512, one or two at a time: two fill each other's waiting.
#include <algorithm>

#include "rans_careful.h"
#include "rans_x86.h"

namespace latentpack {

#if LATENTPACK_X86
namespace {

TARGET_AVX512 inline __m512i look_up16(const int* table, __m512i where) {
  const __m256i low = look_up8(table, _mm512_castsi512_si256(where));
  const __m256i high = look_up8(table, _mm512_extracti64x4_epi64(where, 1));
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

// K streams of H times 16 lanes, 16 of them in a register.
template <int K, int H>
TARGET_AVX512 size_t decode_wide(const Prepared& tables, uint32_t* const (&states)[K],
                                 Reader* const (&readers)[K], const uint8_t* const (&index)[K],
                                 size_t steps, int16_t* const (&symbols)[K], unsigned& escaped) {
  const int* slots = reinterpret_cast<const int*>(tables.slots.data());
  const __m128i precision = _mm_cvtsi32_si128(tables.precision);
  const __m512i mask = _mm512_set1_epi32((1 << tables.precision) - 1);
  const __m512i low12 = _mm512_set1_epi32(0xFFF);
  const __m512i lower = _mm512_set1_epi32(static_cast<int>(kLower));
  const __m512i escape = _mm512_set1_epi32(static_cast<int>(0xFF000000u));
  const __m256i base = _mm256_set1_epi16(static_cast<int16_t>(tables.base));
  constexpr int kLanes = 16 * H;
  __m512i x[K][H];
  const uint8_t *at[K], *last[K];
  for (int k = 0; k < K; ++k) {
    for (int h = 0; h < H; ++h) x[k][h] = _mm512_loadu_si512(states[k] + 16 * h);
    at[k] = readers[k]->at;
    last[k] = readers[k]->limit - 2 * kLanes;
  }
  size_t done = 0;
  escaped = 0;
  for (; done < steps; ++done) {
    bool readable = true;
    for (int k = 0; k < K; ++k) readable &= at[k] <= last[k];
    if (!readable) break;
    __m512i entry[K][H];
    for (int k = 0; k < K; ++k) {
      unsigned found = 0;
      for (int h = 0; h < H; ++h) {
        const __m512i row = _mm512_cvtepu8_epi32(_mm_loadu_si128(
            reinterpret_cast<const __m128i*>(index[k] + done * kLanes + 16 * h)));
        const __m512i slot = _mm512_and_si512(x[k][h], mask);
        entry[k][h] =
            look_up16(slots, _mm512_or_si512(_mm512_sll_epi32(row, precision), slot));
        found |= _mm512_cmpge_epu32_mask(entry[k][h], escape);
      }
      escaped |= static_cast<unsigned>(found != 0) << k;
    }
    if (escaped) break;
    for (int k = 0; k < K; ++k) {
      for (int h = 0; h < H; ++h) {
        const __m512i freq = _mm512_and_si512(entry[k][h], low12);
        const __m512i bias = _mm512_and_si512(_mm512_srli_epi32(entry[k][h], 12), low12);
        const __m512i high = _mm512_srl_epi32(x[k][h], precision);
        const __m512i y = _mm512_add_epi32(_mm512_mullo_epi32(freq, high), bias);
        const __mmask16 needy = _mm512_cmplt_epu32_mask(y, lower);
        const __m512i words = _mm512_maskz_expand_epi32(
            needy, _mm512_cvtepu16_epi32(
                       _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at[k]))));
        at[k] += 2 * static_cast<size_t>(_mm_popcnt_u32(needy));
        x[k][h] = _mm512_mask_or_epi32(y, needy, _mm512_slli_epi32(y, 16), words);
        const __m256i value = _mm512_cvtepi32_epi16(_mm512_srli_epi32(entry[k][h], 24));
        _mm256_storeu_si256(
            reinterpret_cast<__m256i*>(symbols[k] + done * kLanes + 16 * h),
            _mm256_add_epi16(value, base));
      }
    }
  }
  for (int k = 0; k < K; ++k) {
    for (int h = 0; h < H; ++h) _mm512_storeu_si512(states[k] + 16 * h, x[k][h]);
    readers[k]->at = at[k];
  }
  return done;
}

void advance(Wanted& wanted, size_t symbols) {
  wanted.index += symbols;
  wanted.symbols += symbols;
  wanted.n -= symbols;
}

// As far as both streams go together, but for their last words.
template <int H>
Status decode_together(const Prepared& tables, Wanted* const (&both)[2]) {
  constexpr int kLanes = 16 * H;
  uint32_t* const states[2] = {both[0]->state->states, both[1]->state->states};
  Reader readers[2];
  for (int s = 0; s < 2; ++s) {
    const uint8_t* end = both[s]->words + both[s]->bytes;
    readers[s] = {both[s]->words + both[s]->state->at, end, end};
  }
  Status status = Status::kOk;
  for (unsigned escaped = 3; escaped && status == Status::kOk;) {
    const size_t steps = std::min(both[0]->n, both[1]->n) / kLanes;
    const size_t done = decode_wide<2, H>(tables, states, {&readers[0], &readers[1]},
                                       {both[0]->index, both[1]->index}, steps,
                                       {both[0]->symbols, both[1]->symbols}, escaped);
    for (int s = 0; s < 2; ++s) {
      advance(*both[s], done * kLanes);
      if (status != Status::kOk || !(escaped >> s & 1)) continue;
      CarefulDecoder careful(tables, states[s], readers[s]);
      status = careful.run(0, kLanes, both[s]->index, kLanes, both[s]->symbols);
      advance(*both[s], kLanes);
    }
  }
  for (int s = 0; s < 2; ++s)
    both[s]->state->at = both[s]->bytes - static_cast<size_t>(readers[s].end - readers[s].at);
  return status;
}

}  // namespace

size_t decode_wide_avx512(const Prepared& tables, uint32_t* states, Reader& reader,
                          const uint8_t* index, size_t steps, int16_t* symbols) {
  unsigned escaped;
  return kMaxLanes * decode_wide<1, 2>(tables, {states}, {&reader}, {index}, steps, {symbols}, escaped);
}

#endif

Status decode_two(Prepared& tables, Isa isa, Wanted& a, Wanted& b) {
#if LATENTPACK_X86
  const uint32_t lanes = a.state->lanes;
  bool fast = isa >= Isa::kAvx512 && tables.narrow && tables.uncoded.empty();
  fast &= lanes >= 16 && lanes == b.state->lanes && a.state->lane == 0 && b.state->lane == 0;
  if (fast) {
    const int named = std::max(rows_named(a.index, a.n), rows_named(b.index, b.n));
    if (named > tables.rows) return Status::kBadIndex;
    tables.fill(named, true);
    const Status status = lanes == 16 ? decode_together<1>(tables, {&a, &b})
                                      : decode_together<2>(tables, {&a, &b});
    if (status != Status::kOk) return status;
  }
#endif
  for (Wanted* one : {&a, &b}) {
    const Status status = decode(tables, isa, *one->state, one->words, one->bytes, one->index,
                                 one->n, one->symbols);
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

}  // namespace latentpack
