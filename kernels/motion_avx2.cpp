// The loops of motion for AVX2.
#include "rans.h"

#if LATENTPACK_X86
#define MOTION_TARGET __attribute__((target("avx2")))
#define MOTION_LANES 16
#include "motion_loops.h"

namespace latentpack::motion {
const Loops kAvx2Loops = MOTION_LOOPS;
}  // namespace latentpack::motion
#endif
