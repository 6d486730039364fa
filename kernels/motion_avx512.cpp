// The loops of motion for AVX-512.
#include "rans.h"

#if LATENTPACK_X86
#define MOTION_TARGET __attribute__((target("avx2,avx512f,avx512bw,avx512vl")))
#define MOTION_LANES 32
#include "motion_loops.h"

namespace latentpack::motion {
const Loops kAvx512Loops = MOTION_LOOPS;
}  // namespace latentpack::motion
#endif
