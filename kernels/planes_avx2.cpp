// The plane coder's loops for AVX2.
#include "planes.h"

#if LATENTPACK_X86

#define PLANES_TARGET __attribute__((target("avx2,popcnt,bmi2")))
#include "planes_loops.h"

namespace latentpack::planes {

const Loops& avx2_loops() {
  static const Loops loops = {split,       join,         to_nibbles,   from_nibbles, substitute,
                              differences, scalar_loops().decode_steps, scalar_loops().encode_steps, nullptr};
  return loops;
}

}  // namespace latentpack::planes

#endif
