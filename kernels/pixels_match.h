// What came after the same surroundings before: for text, icons and other repeated things.
#pragma once

#include "pixels.h"
#include "pixels_vector.h"

namespace latentpack::pixels {
namespace PIXELS_ISA {

constexpr int kMatchSlots = 1 << 16;
constexpr int kMatchClasses = 6;  // none, then by how often in a row the match was right

class Match {
 public:
  Match() : memory_(kMatchSlots * sizeof(int32_t)), last_(memory_.as<int32_t>()) {}

  // Before a sample: its number, and a hash of its surroundings.
  PIXELS_INLINE void look_up(int32_t number, uint32_t hash, const uint16_t* samples) {
    int32_t& last = last_[hash * 0x9E3779B1u >> 16];
    if (!right_) from_ = last - 1;
    last = number + 1;
    expected = from_ < 0 ? -1 : samples[from_];
    match_class = from_ < 0    ? 0
                  : right_ < 1 ? 1
                  : right_ < 4 ? 2
                  : right_ < 16 ? 3
                  : right_ < 64 ? 4
                                : 5;
  }

  PIXELS_INLINE void learn(int sample) {
    right_ = sample == expected ? right_ + 1 : 0;
    ++from_;
  }

  int expected = -1;    // the sample after the same surroundings, or -1
  int match_class = 0;

 private:
  Memory memory_;
  int32_t* last_;       // number of the last sample with these surroundings, plus 1
  int32_t from_ = -1;
  int32_t right_ = 0;   // predictions in a row
};

}  // namespace PIXELS_ISA
}  // namespace latentpack::pixels
