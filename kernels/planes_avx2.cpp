// The plane decoder's loops for AVX2.
#include "planes.h"

#if LATENTPACK_X86

#define PLANES_TARGET __attribute__((target("avx2,popcnt,bmi2")))
#include <immintrin.h>

#include "planes_loops.h"

namespace latentpack::planes {
namespace {

#define INLINE PLANES_TARGET __attribute__((always_inline)) inline

constexpr uintptr_t kLine = 64;

// By a mask of 8 lanes: which of the next words each of them takes.
struct Order {
  alignas(32) uint32_t of[256][8];
  constexpr Order() : of() {
    for (int mask = 0; mask < 256; ++mask)
      for (uint32_t lane = 0, next = 0; lane < 8; ++lane) of[mask][lane] = mask >> lane & 1 ? next++ : 0;
  }
};
constexpr Order kOrder;

// slots[index] of 8 lanes. A gather instruction does the same, slower on many processors.
INLINE __m256i look_up(const uint32_t* slots, __m256i index) {
  const auto four = [&](__m128i i) PLANES_TARGET __attribute__((always_inline)) {
    const auto low = static_cast<uint64_t>(_mm_cvtsi128_si64(i));
    const auto high = static_cast<uint64_t>(_mm_extract_epi64(i, 1));
    __m128i r = _mm_cvtsi32_si128(static_cast<int>(slots[static_cast<uint32_t>(low)]));
    r = _mm_insert_epi32(r, static_cast<int>(slots[low >> 32]), 1);
    r = _mm_insert_epi32(r, static_cast<int>(slots[static_cast<uint32_t>(high)]), 2);
    return _mm_insert_epi32(r, static_cast<int>(slots[high >> 32]), 3);
  };
  return _mm256_inserti128_si256(_mm256_castsi128_si256(four(_mm256_castsi256_si128(index))),
                                 four(_mm256_extracti128_si256(index, 1)), 1);
}

// Advances 8 lanes by one symbol; the table's entries.
INLINE __m256i advance(__m256i& x, const uint32_t* slots, const uint8_t*& at) {
  const __m256i low12 = _mm256_set1_epi32(0xFFF);
  const __m256i entry = look_up(slots, _mm256_and_si256(x, low12));
  const __m256i freq = _mm256_and_si256(entry, low12);
  const __m256i bias = _mm256_and_si256(_mm256_srli_epi32(entry, 12), low12);
  const __m256i y = _mm256_add_epi32(_mm256_mullo_epi32(freq, _mm256_srli_epi32(x, 12)), bias);
  const __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(y, 16), _mm256_setzero_si256());
  const auto mask = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(low)));
  const __m256i next =
      _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  const __m256i order = _mm256_load_si256(reinterpret_cast<const __m256i*>(kOrder.of[mask]));
  const __m256i words = _mm256_permutevar8x32_epi32(next, order);
  const __m256i full = _mm256_or_si256(_mm256_slli_epi32(y, 16), words);
  x = _mm256_blendv_epi8(y, full, low);
  at += 2 * static_cast<unsigned>(__builtin_popcount(mask));
  return entry;
}

template <bool kStream>
INLINE void put(uint8_t* out, __m256i value) {
  if (kStream) _mm256_stream_si256(reinterpret_cast<__m256i*>(out), value);
  else _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), value);
}

template <bool kStream>
INLINE void put(uint8_t* out, __m128i value) {
  if (kStream) _mm_stream_si128(reinterpret_cast<__m128i*>(out), value);
  else _mm_storeu_si128(reinterpret_cast<__m128i*>(out), value);
}

INLINE __m128i load8(const uint8_t* bytes) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
}
INLINE __m128i load16(const uint8_t* bytes) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
}

INLINE __m256i load_window(uint8_t top) {
  uint8_t exponents[16];
  for (unsigned nibble = 0; nibble < 16; ++nibble) exponents[nibble] = exponent_of(nibble, top);
  return _mm256_broadcastsi128_si256(load16(exponents));
}

// 16 bf16 from nibbles in 16 lanes (only 4 bits of each count) and 16 rests.
INLINE __m256i join16(__m256i nibbles, __m256i window, const uint8_t* rests) {
  const __m256i index = _mm256_and_si256(nibbles, _mm256_set1_epi16(15));
  // The upper byte of each lane looks up nibble 0; the mask drops it.
  const __m256i exponents = _mm256_and_si256(
      _mm256_slli_epi16(_mm256_shuffle_epi8(window, index), 7), _mm256_set1_epi16(0x7F80));
  const __m256i rest = _mm256_cvtepi8_epi16(load16(rests));
  // Sign-extended, a rest has its sign and mantissa where a bf16 has them.
  const __m256i mask = _mm256_set1_epi16(static_cast<short>(0x807F));
  return _mm256_or_si256(_mm256_and_si256(rest, mask), exponents);
}

// The nibbles of 8 pairs in the top bytes of `entry`, each in a lane of 16 bits.
INLINE __m256i nibbles_of(__m256i entry) {
  return _mm256_blend_epi16(_mm256_srli_epi32(entry, 24), _mm256_srli_epi32(entry, 12), 0xAA);
}

// 16 float32: their upper halves, and planes 2 and 3.
template <bool kStream>
INLINE void put_floats(__m256i upper, const uint8_t* byte1, const uint8_t* byte0, uint8_t* out) {
  const __m256i lower = _mm256_or_si256(_mm256_slli_epi16(_mm256_cvtepu8_epi16(load16(byte1)), 8),
                                        _mm256_cvtepu8_epi16(load16(byte0)));
  // unpack works within 128 bits: the lanes are put where it finds them.
  const __m256i low = _mm256_permute4x64_epi64(lower, 0xD8);
  const __m256i high = _mm256_permute4x64_epi64(upper, 0xD8);
  put<kStream>(out, _mm256_unpacklo_epi16(low, high));
  put<kStream>(out + 32, _mm256_unpackhi_epi16(low, high));
}

// 16 e4m3 from 8 pairs of exponents and 8 pairs of rests.
INLINE __m128i join_pairs(__m128i pairs, __m128i rests) {
  const __m128i exponents =
      _mm_or_si128(_mm_and_si128(_mm_slli_epi16(pairs, 3), _mm_set1_epi16(0x0078)),
                   _mm_and_si128(_mm_slli_epi16(pairs, 7), _mm_set1_epi16(0x7800)));
  const __m128i middle = _mm_and_si128(_mm_slli_epi16(rests, 4), _mm_set1_epi16(0x0780));
  const __m128i ends = _mm_or_si128(
      _mm_and_si128(rests, _mm_set1_epi16(0x0007)),
      _mm_and_si128(_mm_slli_epi16(rests, 8), _mm_set1_epi16(static_cast<short>(0x8000))));
  return _mm_or_si128(exponents, _mm_or_si128(middle, ends));
}

// The symbols in the top bytes of `entry`, in 8 lanes of 16 bits.
INLINE __m128i symbols_of(__m256i entry) {
  const __m256i wide = _mm256_srli_epi32(entry, 24);
  return _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
}

// The elements of 8 symbols, `at` symbols after the target's start.
template <int kJoint, bool kStream>
INLINE void emit(const Target& to, __m256i window, size_t at, __m256i entry) {
  if constexpr (kJoint == kJoinFloat2) {
    put<kStream>(to.out + 4 * at, join16(nibbles_of(entry), window, to.stored[0] + 2 * at));
  } else if constexpr (kJoint == kJoinFloat4) {
    put_floats<kStream>(join16(nibbles_of(entry), window, to.stored[0] + 2 * at),
                        to.stored[1] + 2 * at, to.stored[2] + 2 * at, to.out + 8 * at);
  } else if constexpr (kJoint == kJoinBytes2) {
    const __m128i low = _mm_cvtepu8_epi16(load8(to.stored[0] + at));
    put<kStream>(to.out + 2 * at, _mm_or_si128(_mm_slli_epi16(symbols_of(entry), 8), low));
  } else if constexpr (kJoint == kJoinNibbles) {
    const __m128i rests = _mm_cvtepu8_epi16(load8(to.stored[0] + at));
    put<kStream>(to.out + 2 * at, join_pairs(symbols_of(entry), rests));
  } else {
    const __m128i symbols = symbols_of(entry);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to.out + at), _mm_packus_epi16(symbols, symbols));
  }
}

// Steps of K streams in turn.
template <int K, int kJoint, bool kStream>
PLANES_TARGET size_t decode_joint(Stream* const* streams, const Table* const* tables,
                                  const Target* targets, size_t steps) {
  __m256i x[K][4], windows[K];
  const uint8_t* at[K];
  const uint32_t* slots[K];
  Ahead ahead = streams[0]->ahead;
  for (int k = 0; k < K; ++k) {
    for (int q = 0; q < 4; ++q)
      x[k][q] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(streams[k]->states + 8 * q));
    windows[k] = load_window(targets[k].top);
    at[k] = streams[k]->at;
    slots[k] = tables[k]->slots.data();
  }
  size_t done = 0;
  for (; done < steps; ++done) {
    bool readable = true;
    for (int k = 0; k < K; ++k) readable &= streams[k]->limit - at[k] >= kReadable;
    if (!readable) break;
    for (int k = 0; k < K; ++k) ask(ahead);
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q)
#pragma GCC unroll 2
      for (int k = 0; k < K; ++k)
        emit<kJoint, kStream>(targets[k], windows[k], 32 * done + 8 * static_cast<size_t>(q),
                              advance(x[k][q], slots[k], at[k]));
  }
  for (int k = 0; k < K; ++k) {
    for (int q = 0; q < 4; ++q)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(streams[k]->states + 8 * q), x[k][q]);
    streams[k]->at = at[k];
  }
  return done;
}

template <bool kStream>
PLANES_TARGET void join_window_to(const uint8_t* pairs, const uint8_t* rests, uint8_t top,
                                  size_t n, uint8_t* out, Ahead ahead) {
  const __m256i window = load_window(top);
  for (size_t i = 0; i < n; i += 16) {
    if (i % 64 == 0) ask(ahead);
    const __m256i entry = _mm256_slli_epi32(_mm256_cvtepu8_epi32(load8(pairs + i / 2)), 24);
    put<kStream>(out + 2 * i, join16(nibbles_of(entry), window, rests + i));
  }
  if (kStream) _mm_sfence();
}

PLANES_TARGET void join_window(const uint8_t* pairs, const uint8_t* rests, uint8_t top, size_t n,
                               uint8_t* out, bool past_caches, Ahead ahead) {
  if (past_caches && reinterpret_cast<uintptr_t>(out) % kLine == 0)
    join_window_to<true>(pairs, rests, top, n, out, ahead);
  else join_window_to<false>(pairs, rests, top, n, out, ahead);
}

#undef INLINE

}  // namespace
}  // namespace latentpack::planes

#include "planes_steps.h"

namespace latentpack::planes {

const Loops& avx2_loops() {
  static const Loops loops = {join, from_nibbles, decode_steps, join_window};
  return loops;
}

}  // namespace latentpack::planes

#endif
