// The loops of fitted pictures for AVX-512.
#include "rans.h"

#if LATENTPACK_X86
#include <immintrin.h>

#define FIT_TARGET __attribute__((target("avx2,avx512f,avx512bw,avx512vl")))
#define FIT_LANES 16
#define FIT_MADD(a, b) ((U)_mm512_madd_epi16((__m512i)(a), (__m512i)(b)))
#include "fit_loops.h"

namespace latentpack::fit {
const Loops kAvx512Loops = FIT_LOOPS;
}  // namespace latentpack::fit
#endif
