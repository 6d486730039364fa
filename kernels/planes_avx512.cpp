// The plane coder's loops for AVX-512 (F, BW, VL, VBMI2).
#include "planes.h"

#if LATENTPACK_X86

#define PLANES_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt,bmi2")))
#include "planes_loops.h"

namespace latentpack::planes {

const Loops& avx512_loops() {
  static const Loops loops = {split,       join,         to_nibbles,   from_nibbles, substitute,
                              differences, scalar_loops().decode_steps, scalar_loops().encode_steps, nullptr};
  return loops;
}

}  // namespace latentpack::planes

#endif
