// The probability of a decision about a sample: the experts' estimates and counters in contexts,
// mixed in the logistic domain, corrected by what came of such mixtures before.
#pragma once

#include "sounds_filters.h"

namespace latentpack::sounds {
namespace PIXELS_ISA {

constexpr int kExperts = 8;
constexpr int kContexts = 4;
constexpr int kInputs = 16;  // the last four are 0
constexpr int kNodes = 32;   // of the tree of decisions
constexpr int kSlots = 64 * kNodes;
constexpr int kMixers = 2;
constexpr int kMixerSets = 16 * kNodes;
constexpr int kMapBins = 17;
constexpr int kMapSets = 16 * kNodes;
constexpr int kRateSteps = 256;
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
  F8 outward, inward;         // probabilities of both answers by each expert, not normalised
  uint32_t slots[kContexts];  // of the counters
  uint32_t mixers[kMixers];   // sets of weights
  uint32_t map;               // set of the final correction
};

class Mixer {
 public:
  void start() {
    for (int i = 0; i < kMixers * kMixerSets * kInputs; ++i)
      weights_[i] = i % kInputs < kExperts ? 0.15f : i % kInputs < kExperts + kContexts ? 0.03f : 0.0f;
    for (int i = 0; i < kContexts * kSlots; ++i) counters_[i] = 1u << 31;
    for (int i = 0; i < 24; i += 8) {
      F8 v{};
      for (int j = 0; j < 8; ++j) v[j] = 8.0f - static_cast<float>(i + j);
      v = 1.0f / (1.0f + exponential(v));
      for (int j = 0; j < 8 && i + j < kMapBins; ++j)
        for (int set = 0; set < kMapSets; ++set) maps_[set * kMapBins + i + j] = v[j];
    }
    for (int i = 0; i < kRateSteps; ++i)
      rates_[i] = 0.004f + 0.02f / (1.0f + 0.05f * static_cast<float>(i));
    for (int i = 0; i < 4096; i += 8) {
      F8 v{};
      for (int j = 0; j < 8; ++j) v[j] = static_cast<float>(i + j) + 0.5f;
      store(logits_ + i, logarithm(v) - logarithm(4096.0f - v));
    }
  }

  // Codes a bit with a probability from all of this, then learns from it.
  template <typename Coder>
  PIXELS_INLINE int code(Coder& coder, const Question& question, int bit) {
    const F8 direct = logarithm(question.outward) - logarithm(question.inward);
    uint32_t* counters[kContexts];
    F8 counted{};
#pragma GCC unroll 4
    for (int i = 0; i < kContexts; ++i) {
      counters[i] = counters_ + i * kSlots + question.slots[i];
      counted[i] = logits_[*counters[i] >> 20];
    }
    const Floats inputs = both(between(direct, -12.0f, 12.0f), counted);

    F8 dots{};
    float* weights[kMixers];
#pragma GCC unroll 2
    for (int i = 0; i < kMixers; ++i) {
      weights[i] = weights_ + (static_cast<size_t>(i) * kMixerSets + question.mixers[i]) * kInputs;
      dots[i] = between(sum(floats(weights[i]) * inputs), -14.0f, 14.0f);
    }
    const float mean = (dots[0] + dots[1]) * 0.5f;
    dots[2] = mean;
    const F8 p = 1.0f / (1.0f + exponential(-dots));

    const float place = between(mean, -7.99f, 7.99f) + 8.0f;
    const int bin = static_cast<int>(place);
    const float part = place - static_cast<float>(bin), rest = 1.0f - part;
    float* map = maps_ + static_cast<size_t>(question.map) * kMapBins + bin;
    const float mixed = (p[2] + (map[0] * rest + map[1] * part)) * 0.5f;
    const auto scaled = static_cast<int32_t>(mixed * 65536.0f);
    bit = coder.code(bit, static_cast<uint32_t>(scaled < 1 ? 1 : scaled > 65535 ? 65535 : scaled));

    const float truth = static_cast<float>(bit);
#pragma GCC unroll 2
    for (int i = 0; i < kMixers; ++i) {
      uint8_t& seen = seen_[i * kMixerSets + question.mixers[i]];
      const float step = (truth - p[i]) * rates_[seen];
      seen = static_cast<uint8_t>(seen + (seen < kRateSteps - 1));
      store(weights[i], floats(weights[i]) + inputs * step);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kContexts; ++i) *counters[i] = counted_on(*counters[i], bit);
    map[0] = map[0] + (truth - map[0]) * (rest * 0.02f);
    map[1] = map[1] + (truth - map[1]) * (part * 0.02f);
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

  alignas(64) float weights_[kMixers * kMixerSets * kInputs];
  uint32_t counters_[kContexts * kSlots];
  float maps_[kMapSets * kMapBins];
  float rates_[kRateSteps];
  alignas(64) float logits_[4096];
  uint8_t seen_[kMixers * kMixerSets];
};

}  // namespace PIXELS_ISA
}  // namespace latentpack::sounds
