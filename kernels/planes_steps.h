// The ways through `decode_joint`, which the includer defines: streams, kinds of joints, and writing
// past the caches. Like planes_loops.h, once per instruction set.

#include <algorithm>
#include <cstdint>

#include "planes.h"

namespace latentpack::planes {
namespace {

template <int kJoint, bool kStream>
PLANES_TARGET size_t decode_count(Stream* const* streams, const Table* const* tables,
                                  const Target* targets, int count, size_t steps) {
  static_assert(kTogether == 2);
  return count == 1 ? decode_joint<1, kJoint, kStream>(streams, tables, targets, steps)
                    : decode_joint<2, kJoint, kStream>(streams, tables, targets, steps);
}

PLANES_TARGET void decode_steps(int joint, Stream* const* streams, const Table* const* tables,
                                const Target* targets, int count, size_t steps, bool past_caches,
                                size_t* done) {
  using Decode = size_t(Stream* const*, const Table* const*, const Target*, int, size_t);
  constexpr Decode* decode[][2] = {
      {decode_count<kApart, false>, decode_count<kApart, false>},
      {decode_count<kJoinNone, false>, decode_count<kJoinNone, true>},
      {decode_count<kJoinBytes2, false>, decode_count<kJoinBytes2, true>},
      {decode_count<kJoinFloat2, false>, decode_count<kJoinFloat2, true>},
      {decode_count<kJoinFloat4, false>, decode_count<kJoinFloat4, true>},
      {decode_count<kJoinNibbles, false>, decode_count<kJoinNibbles, true>},
  };
  bool aligned = past_caches;
  for (int k = 0; k < count; ++k)
    aligned &= reinterpret_cast<uintptr_t>(targets[k].out) % kLine == 0;
  const size_t made = decode[joint][aligned](streams, tables, targets, count, steps);
  if (aligned) _mm_sfence();
  std::fill(done, done + count, made);
}

}  // namespace
}  // namespace latentpack::planes
