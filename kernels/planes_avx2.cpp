// The plane decoder's loops for AVX2.
#include "planes.h"

#if LATENTPACK_X86

#define PLANES_TARGET __attribute__((target("avx2,popcnt,bmi2")))
#include "planes_loops.h"

namespace latentpack::planes {

const Loops& avx2_loops() {
  const Loops& plain = scalar_loops();
  static const Loops loops = {join, from_nibbles, plain.decode_steps, plain.decode_bf16,
                              plain.join_window};
  return loops;
}

}  // namespace latentpack::planes

#endif
