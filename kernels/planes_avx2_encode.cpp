// The plane encoder's loops for AVX2.
#include "planes.h"

#if LATENTPACK_X86

#define PLANES_TARGET __attribute__((target("avx2,popcnt,bmi2")))
#include "planes_encode_loops.h"

namespace latentpack::planes {

const EncodeLoops& avx2_encode_loops() {
  const EncodeLoops& plain = scalar_encode_loops();
  static const EncodeLoops loops = {split,              split_window,     plain.substitute,
                                    plain.encode_steps, plain.copy_lines, plain.fence};
  return loops;
}

}  // namespace latentpack::planes

#endif
