// The loops of fitted pictures for every machine.
#include "rans.h"

#define FIT_TARGET
#define FIT_LANES 4
#if LATENTPACK_X86
#include <immintrin.h>
#define FIT_MADD(a, b) ((U)_mm_madd_epi16((__m128i)(a), (__m128i)(b)))
#else
// Halves are signed: the lower one is moved up and down again.
#define FIT_MADD(a, b)                                               \
  (((U)((I)((a) << 16) >> 16) * (U)((I)((b) << 16) >> 16)) +         \
   ((U)((I)(a) >> 16) * (U)((I)(b) >> 16)))
#endif
#include "fit_loops.h"

namespace latentpack::fit {
const Loops kScalarLoops = FIT_LOOPS;
}  // namespace latentpack::fit
