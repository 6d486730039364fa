// Vectors of 8, 16 or 32 integers of 16 bits. Interleaving and narrowing work within each 8 of them.
// The includer of motion_loops.h defines MOTION_TARGET and MOTION_LANES, the most there are.
#pragma once

#include <cstdint>
#include <cstring>

#include "rans.h"

#if LATENTPACK_X86
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#endif

namespace latentpack::motion {
namespace {

#define MOTION_INLINE MOTION_TARGET __attribute__((always_inline)) inline

template <int kLanes>
struct Vectors {
  typedef int16_t I16 __attribute__((vector_size(2 * kLanes)));
  typedef uint16_t U16 __attribute__((vector_size(2 * kLanes)));
  typedef uint8_t U8 __attribute__((vector_size(kLanes)));
  typedef int32_t I32 __attribute__((vector_size(2 * kLanes)));  // half as many
};

template <typename V, typename T>
MOTION_INLINE V load(const T* at) {
  V v;
  std::memcpy(&v, at, sizeof v);
  return v;
}

template <typename V, typename T>
MOTION_INLINE void store(T* at, V v) {
  std::memcpy(at, &v, sizeof v);
}

#if LATENTPACK_X86
#define MOTION_OPERATIONS(name, lanes, M, P)                                                 \
  MOTION_INLINE Vectors<lanes>::I16 name(Vectors<lanes>::I16 a, Vectors<lanes>::I16 b) {     \
    return (Vectors<lanes>::I16)P((M)a, (M)b);                                               \
  }
#define MOTION_ALL(lanes, M, prefix)                               \
  MOTION_OPERATIONS(low16, lanes, M, prefix##_unpacklo_epi16)      \
  MOTION_OPERATIONS(high16, lanes, M, prefix##_unpackhi_epi16)     \
  MOTION_OPERATIONS(low32, lanes, M, prefix##_unpacklo_epi32)      \
  MOTION_OPERATIONS(high32, lanes, M, prefix##_unpackhi_epi32)     \
  MOTION_OPERATIONS(low64, lanes, M, prefix##_unpacklo_epi64)      \
  MOTION_OPERATIONS(high64, lanes, M, prefix##_unpackhi_epi64)     \
  MOTION_OPERATIONS(scaled, lanes, M, prefix##_mulhi_epu16)        \
  MOTION_INLINE Vectors<lanes>::I32 madd(Vectors<lanes>::I16 a, Vectors<lanes>::I16 b) {    \
    return (Vectors<lanes>::I32)prefix##_madd_epi16((M)a, (M)b);                            \
  }                                                                                         \
  MOTION_INLINE Vectors<lanes>::I16 narrow(Vectors<lanes>::I32 a, Vectors<lanes>::I32 b) {  \
    return (Vectors<lanes>::I16)prefix##_packs_epi32((M)a, (M)b);                           \
  }
MOTION_ALL(8, __m128i, _mm)
#if MOTION_LANES >= 16
MOTION_ALL(16, __m256i, _mm256)
#endif
#if MOTION_LANES >= 32
MOTION_ALL(32, __m512i, _mm512)
#endif
#undef MOTION_ALL
#undef MOTION_OPERATIONS
#else
typedef Vectors<8>::I16 V8;
typedef Vectors<8>::I32 W8;
typedef int32_t Q8 __attribute__((vector_size(16)));
typedef int64_t D8 __attribute__((vector_size(16)));
inline V8 low16(V8 a, V8 b) { return __builtin_shuffle(a, b, V8{0, 8, 1, 9, 2, 10, 3, 11}); }
inline V8 high16(V8 a, V8 b) { return __builtin_shuffle(a, b, V8{4, 12, 5, 13, 6, 14, 7, 15}); }
inline V8 low32(V8 a, V8 b) { return __builtin_shuffle(a, b, V8{0, 1, 8, 9, 2, 3, 10, 11}); }
inline V8 high32(V8 a, V8 b) { return __builtin_shuffle(a, b, V8{4, 5, 12, 13, 6, 7, 14, 15}); }
inline V8 low64(V8 a, V8 b) { return __builtin_shuffle(a, b, V8{0, 1, 2, 3, 8, 9, 10, 11}); }
inline V8 high64(V8 a, V8 b) { return __builtin_shuffle(a, b, V8{4, 5, 6, 7, 12, 13, 14, 15}); }
inline V8 scaled(V8 a, V8 b) {  // the upper half of unsigned products
  V8 v;
  for (int i = 0; i < 8; ++i)
    v[i] = static_cast<int16_t>(uint32_t{static_cast<uint16_t>(a[i])} * static_cast<uint16_t>(b[i]) >> 16);
  return v;
}
inline W8 madd(V8 a, V8 b) {
  W8 sums;
  for (int i = 0; i < 4; ++i) sums[i] = a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
  return sums;
}
inline V8 narrow(W8 a, W8 b) {
  V8 v;
  for (int i = 0; i < 8; ++i) {
    const int32_t x = i < 4 ? a[i] : b[i - 4];
    v[i] = static_cast<int16_t>(x < -32768 ? -32768 : x > 32767 ? 32767 : x);
  }
  return v;
}
#endif

}  // namespace
}  // namespace latentpack::motion
