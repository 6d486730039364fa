// The loops of fitted pictures for AVX2.
#include "rans.h"

#if LATENTPACK_X86
#include <immintrin.h>

#define FIT_TARGET __attribute__((target("avx2")))
#define FIT_LANES 8
#define FIT_MADD(a, b) ((U)_mm256_madd_epi16((__m256i)(a), (__m256i)(b)))
#include "fit_loops.h"

namespace latentpack::fit {
const Loops kAvx2Loops = FIT_LOOPS;
}  // namespace latentpack::fit
#endif
