// The loops of the code prior for AVX-512.
#include "rans.h"

#if LATENTPACK_X86
#include <immintrin.h>

#define CODES_TARGET __attribute__((target("avx2,avx512f,avx512bw,avx512vl")))
#define CODES_LANES 16
#define CODES_WIDEN(at) \
  _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)))
#define CODES_MADD(a, b) _mm512_madd_epi16(a, (__m512i)(b))
#include "codes_loops.h"

namespace latentpack::codes {
const Loops kAvx512Loops = CODES_LOOPS;
}  // namespace latentpack::codes
#endif
