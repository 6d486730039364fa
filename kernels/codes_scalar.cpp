// The loops of the code prior for every machine.
#include "rans.h"

#define CODES_TARGET
#define CODES_LANES 4
#if LATENTPACK_X86
#include <immintrin.h>
// Without SSE4.1: bytes are moved to the upper halves and down again.
#define CODES_WIDEN(at)                                                                         \
  _mm_srai_epi16(_mm_unpacklo_epi8(_mm_setzero_si128(),                                         \
                                   _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at))),      \
                 8)
#define CODES_MADD(a, b) _mm_madd_epi16(a, (__m128i)(b))
#else
#include <cstdint>
#include <cstring>
namespace {
typedef int8_t Bytes __attribute__((vector_size(8)));
typedef int16_t Halves __attribute__((vector_size(16)));
typedef uint32_t Words __attribute__((vector_size(16)));
typedef int32_t Signed __attribute__((vector_size(16)));
inline Words widened(const int8_t* at) {
  Bytes bytes;
  std::memcpy(&bytes, at, sizeof bytes);
  return (Words)__builtin_convertvector(bytes, Halves);
}
inline Words madd(Words a, Words b) {
  return (Words)((Signed)(a << 16) >> 16) * (Words)((Signed)(b << 16) >> 16) +
         (Words)((Signed)a >> 16) * (Words)((Signed)b >> 16);
}
}  // namespace
#define CODES_WIDEN(at) widened(at)
#define CODES_MADD(a, b) madd(a, b)
#endif
#include "codes_loops.h"

namespace latentpack::codes {
const Loops kScalarLoops = CODES_LOOPS;
}  // namespace latentpack::codes
