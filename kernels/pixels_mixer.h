// The probability of a decision: counters in contexts and the experts' own estimates, mixed in the
// logistic domain, corrected by what came of such mixtures before.
#pragma once

#include "pixels_vector.h"

namespace latentpack::pixels {
namespace PIXELS_ISA {

constexpr int kExperts = 8;
constexpr int kContexts = 8;
constexpr int kInputs = kExperts + kContexts;
constexpr int kMixers = 3;
constexpr int kSlots = 1 << 16;  // counters of a context
constexpr int kMixerSets = 512 + 5120 + 1024;
constexpr int kRateSteps = 256;
constexpr int kMapBins = 17;
constexpr int kMapSets = 2560 + 1600;
constexpr int kMostCount = 250;

// 65536 / (count + 1.6): how far a counter goes to what it sees.
struct CountRates {
  int32_t of[kMostCount + 1];
  constexpr CountRates() : of{} {
    for (int count = 0; count <= kMostCount; ++count) of[count] = 655360 / (10 * count + 16);
  }
};
constexpr CountRates kCountRates;

// What a decision is made from.
struct Question {
  F8 outward, inward;           // probabilities of both answers by each expert, not normalised
  uint32_t slots[kContexts];    // of the counters
  uint32_t mixers[kMixers];     // sets of weights
  uint32_t maps[2];             // sets of the final correction
};

class Mixer {
 public:
  static size_t bytes() {
    return sizeof(uint32_t) * (kContexts * kSlots + kMixerSets) +
           sizeof(float) * (kMixerSets * kInputs + kMapSets * kMapBins + kRateSteps);
  }

  explicit Mixer(void* memory) {
    weights_ = static_cast<float*>(memory);
    counters_ = reinterpret_cast<uint32_t*>(weights_ + kMixerSets * kInputs);
    seen_ = counters_ + kContexts * kSlots;
    maps_ = reinterpret_cast<float*>(seen_ + kMixerSets);
    rates_ = maps_ + kMapSets * kMapBins;
    for (int i = 0; i < kMixerSets * kInputs; ++i)
      weights_[i] = i % kInputs < kExperts ? 0.2f : 0.06f;
    for (int i = 0; i < kContexts * kSlots; ++i) counters_[i] = 1u << 31;
    float start[24];
    for (int i = 0; i < 24; i += 8) {
      F8 v{};
      for (int j = 0; j < 8; ++j) v[j] = 8.0f - static_cast<float>(i + j);
      store(start + i, 1.0f / (1.0f + exponential(v)));
    }
    for (int i = 0; i < kMapSets; ++i) std::memcpy(maps_ + kMapBins * i, start, 4 * kMapBins);
    for (int i = 0; i < kRateSteps; ++i)
      rates_[i] = 0.003f + 0.02f / (1.0f + 0.05f * static_cast<float>(i));
  }

  // Brings counters near that will be asked for.
  PIXELS_INLINE void expect(int context, uint32_t slot) const {
    __builtin_prefetch(counters_ + context * kSlots + slot);
  }

  // Codes a bit with a probability from all of this, then learns from it.
  template <typename Coder>
  PIXELS_INLINE int code(Coder& coder, const Question& question, int bit) {
    const F8 direct = logarithm(question.outward) - logarithm(question.inward);
    uint32_t* counters[kContexts];
    F8 ones{};
#pragma GCC unroll 8
    for (int i = 0; i < kContexts; ++i) {
      counters[i] = counters_ + i * kSlots + question.slots[i];
      ones[i] = static_cast<float>(static_cast<int32_t>(*counters[i] >> 10));
    }
    ones = ones + 0.5f;
    const F8 counted = logarithm(ones) - logarithm(4194304.0f - ones);
    const F16 inputs = join(between(direct, -12.0f, 12.0f), counted);

    F8 dots{};
    float* weights[kMixers];
#pragma GCC unroll 3
    for (int i = 0; i < kMixers; ++i) {
      weights[i] = weights_ + static_cast<size_t>(question.mixers[i]) * kInputs;
      dots[i] = between(sum(load<F16>(weights[i]) * inputs), -14.0f, 14.0f);
    }
    const float mean = ((dots[0] + dots[1]) + dots[2]) * 0.33333334f;
    dots[3] = mean;
    const F8 p = 1.0f / (1.0f + exponential(-dots));

    const float place = (between(mean, -7.99f, 7.99f) + 8.0f);
    const int bin = static_cast<int>(place);
    const float part = place - static_cast<float>(bin), rest = 1.0f - part;
    float* first = maps_ + static_cast<size_t>(question.maps[0]) * kMapBins + bin;
    float* second = maps_ + static_cast<size_t>(question.maps[1]) * kMapBins + bin;
    const float a = first[0] * rest + first[1] * part;
    const float b = second[0] * rest + second[1] * part;
    const float mixed = p[3] * 0.5f + (a + b) * 0.25f;
    const auto scaled = static_cast<int32_t>(mixed * 65536.0f);
    bit = coder.code(bit, static_cast<uint32_t>(scaled < 1 ? 1 : scaled > 65535 ? 65535 : scaled));

    const float truth = static_cast<float>(bit);
#pragma GCC unroll 3
    for (int i = 0; i < kMixers; ++i) {
      uint32_t& seen = seen_[question.mixers[i]];
      const float step = (truth - p[i]) * rates_[seen];
      seen += seen < kRateSteps - 1;
      store(weights[i], load<F16>(weights[i]) + inputs * step);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kContexts; ++i) *counters[i] = counted_on(*counters[i], bit);
    adapt(first, truth, rest, part);
    adapt(second, truth, rest, part);
    return bit;
  }

 private:
  // A counter is a probability of 22 bits and how often it was used, 10 bits.
  static PIXELS_INLINE uint32_t counted_on(uint32_t counter, int bit) {
    const int32_t p = static_cast<int32_t>(counter >> 10);
    const uint32_t count = counter & 1023;
    const int64_t left = (bit ? 4194303 : 0) - p;
    const int32_t next = p + static_cast<int32_t>(left * kCountRates.of[count] >> 16);
    return static_cast<uint32_t>(next) << 10 | (count + (count < kMostCount));
  }
  static PIXELS_INLINE void adapt(float* map, float truth, float rest, float part) {
    map[0] = map[0] + (truth - map[0]) * (rest * 0.02f);
    map[1] = map[1] + (truth - map[1]) * (part * 0.02f);
  }

  float* weights_;
  uint32_t* counters_;
  uint32_t* seen_;
  float* maps_;
  float* rates_;
};

}  // namespace PIXELS_ISA
}  // namespace latentpack::pixels
