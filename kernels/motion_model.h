// Probabilities of the decisions of a motion field: see motion_model_ref.py.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pixels_coder.h"

namespace latentpack::motion {

constexpr int kMostOdds = 2047;
constexpr int kMostCount = 60;
constexpr int kInputs = 3;
constexpr int kFirstWeight = 20000;

// A kind of decision: where its mixers and its counters begin.
struct Kind {
  int mixer, slots[kInputs];
};

struct Kinds {
  int mixers = 0, slots = 0;
  Kind split, merge, index, mode, zero, exponent, mantissa;

  constexpr Kinds()
      : split(next(5, 5 * 9, 5 * 9, 5 * 16)), merge(next(5, 5 * 6, 5 * 9, 5 * 12)),
        index(next(4, 4 * 36, 4 * 35, 4 * 20)), mode(next(2, 2 * 16, 2 * 20, 2 * 5)),
        zero(next(3, 3 * 6, 3 * 10, 3 * 12)),
        exponent(next(2, 2 * 10 * 6, 2 * 10 * 5, 2 * 10 * 7)),
        mantissa(next(2, 2 * 16, 2 * 16 * 2, 2)) {}

 private:
  constexpr Kind next(int count, int a, int b, int c) {
    const Kind kind{mixers, {slots, slots + a, slots + a + b}};
    mixers += count;
    slots += a + b + c;
    return kind;
  }
};
constexpr Kinds kKinds;

// What follows from logarithmic odds and counts, the same for all fields.
struct Tables {
  int16_t odds[4096];
  int32_t rates[kMostCount + 1];
  Tables();
  static int probability(int odds);
  static const Tables& get();
};

// A coder and what it expects.
template <typename Coder>
class Model {
 public:
  explicit Model(Coder& coder)
      : coder_(coder), tables_(Tables::get()), p_(kKinds.slots, 1 << 15), counts_(kKinds.slots),
        weights_(kKinds.mixers * kInputs, kFirstWeight) {}

  // Takes a decision, or returns it.
  int code(const Kind& kind, int mixer, int a, int b, int c, int bit) {
    const int contexts[kInputs] = {a, b, c};
    int32_t* weights = weights_.data() + (kind.mixer + mixer) * kInputs;
    int odds[kInputs];
    int64_t total = 0;
    for (int i = 0; i < kInputs; ++i) {
      odds[i] = tables_.odds[p_[static_cast<size_t>(kind.slots[i] + contexts[i])] >> 4];
      total += static_cast<int64_t>(weights[i]) * odds[i];
    }
    const int p = Tables::probability(
        static_cast<int>(std::clamp<int64_t>(total >> 16, -kMostOdds, kMostOdds)));
    bit = coder_.code(bit, static_cast<uint32_t>(p));
    const int left = 65535 * bit - p;
    for (int i = 0; i < kInputs; ++i) {
      weights[i] += (odds[i] * left + (1 << 13)) >> 14;
      const auto slot = static_cast<size_t>(kind.slots[i] + contexts[i]);
      const int64_t step = int64_t{65535 * bit - p_[slot]} * tables_.rates[counts_[slot]] >> 16;
      p_[slot] += static_cast<int32_t>(step);
      counts_[slot] = static_cast<uint8_t>(std::min(counts_[slot] + 1, kMostCount));
    }
    return bit;
  }
  int even(int bit) { return coder_.code(bit, 1u << 15); }

 private:
  Coder& coder_;
  const Tables& tables_;
  std::vector<int32_t> p_;
  std::vector<uint8_t> counts_;
  std::vector<int32_t> weights_;
};

}  // namespace latentpack::motion
