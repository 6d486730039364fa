// The loops of the code prior for AVX2.
#include "rans.h"

#if LATENTPACK_X86
#include <immintrin.h>

#define CODES_TARGET __attribute__((target("avx2")))
#define CODES_LANES 8
#define CODES_WIDEN(at) \
  _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)))
#define CODES_MADD(a, b) _mm256_madd_epi16(a, (__m256i)(b))
#include "codes_loops.h"

namespace latentpack::codes {
const Loops kAvx2Loops = CODES_LOOPS;
}  // namespace latentpack::codes
#endif
