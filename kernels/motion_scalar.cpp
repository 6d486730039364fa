// The loops of motion for every machine.
#include "rans.h"

#define MOTION_TARGET
#define MOTION_LANES 8
#include "motion_loops.h"

namespace latentpack::motion {
const Loops kScalarLoops = MOTION_LOOPS;
}  // namespace latentpack::motion
