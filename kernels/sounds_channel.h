// A channel of a sound, sample by sample: filters predict, a mixture decides, everything learns.
#pragma once

#include <cmath>

#include "pixels.h"
#include "pixels_coder.h"
#include "sounds.h"
#include "sounds_mixer.h"

namespace latentpack::sounds {
namespace PIXELS_ISA {

constexpr int kWide = 32, kTight = 16, kMix = 8;     // taps
constexpr int kWideOther = 8, kTightOther = 4;       // those of a partner
constexpr int kStages = 5;                           // of gradient descent, at most
constexpr int kClasses = 160;                        // of scale, four to an octave
constexpr int kFirstClass = 480;                     // 2^-7
constexpr int kUnary = 9;                            // spans that are told apart

// How much is computed; a stage of length 0 ends them.
struct Effort {
  int wide_every, tight_every, mix_every;
  struct {
    int length;
    float rate;
  } stages[kStages];
};
constexpr Effort kEffortTable[kEfforts] = {
    {32, 16, 16, {{32, 0.03f}}},
    {16, 8, 8, {{1024, 0.01f}, {128, 0.03f}, {32, 0.04f}, {16, 0.05f}}},
    {4, 1, 1, {{2048, 0.007f}, {512, 0.015f}, {128, 0.03f}, {32, 0.04f}, {16, 0.05f}}},
};

// An average that forgets: sum / count.
struct Average {
  float sum, count;
  PIXELS_INLINE float get() const { return sum / count; }
  PIXELS_INLINE void add(float value) {
    sum = sum + value;
    count = count + 1.0f;
    if (count > 400.0f) {
      sum = sum * 0.5f;
      count = count * 0.5f;
    }
  }
};

PIXELS_INLINE int32_t bits_of(float v) {
  int32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits;
}
PIXELS_INLINE float float_of(int32_t bits) {
  float v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}
PIXELS_INLINE int clamped(int v, int low, int high) { return v < low ? low : v > high ? high : v; }
PIXELS_INLINE int sign(double v) { return (v > 0.0) - (v < 0.0); }

// 0 to 4: how far and on which side of 0.
PIXELS_INLINE int fifth(float v) {
  if (v < 0.0f) return v < -2.2f ? 0 : v < -0.7f ? 1 : 2;
  return v > 2.2f ? 4 : v > 0.7f ? 3 : 2;
}

// All members start as zeros, see Memory.
class ChannelCoder {
 public:
  void start(const Channel& channel, const ChannelCoder* partner, bool partner_first,
             const Effort& effort) {
    samples_ = channel.samples;
    low_ = channel.low;
    high_ = channel.high;
    partner_ = partner;
    partner_first_ = partner_first;
    history_.start();
    wide_.start(effort.wide_every, effort.wide_every, 0.998);
    tight_.start(effort.tight_every, (effort.tight_every + 1) / 2, 0.98);
    mix_.start(effort.mix_every, effort.mix_every, 0.998);
    for (; count_ < kStages && effort.stages[count_].length; ++count_) {
      stages_[count_].start(effort.stages[count_].length, effort.stages[count_].rate);
      shares_[count_] = 1.0f;
    }
    mixer_.start();
    for (int i = 0; i < kExperts; ++i) energy_[i] = 10.0f;
    for (int i = 0; i < kExperts * kClasses; ++i)
      scales_[i] = {4.0f * float_of((i % kClasses + kFirstClass) << 21), 4.0f};
  }

  template <typename Coder>
  PIXELS_INLINE void code(Coder& coder, size_t at) {
    predict();
    set_contexts();
    samples_[at] = code_sample(coder, samples_[at]);
    learn(samples_[at]);
  }

 private:
  PIXELS_INLINE void predict() {
    const double low = low_, high = high_;
    gather<kWide, kWideOther>(wide_taps_);
    gather<kTight, kTightOther>(tight_taps_);
    first_ = between(wide_.predict(wide_taps_), low, high);
    const double tight = between(tight_.predict(tight_taps_), low, high);
    double all = first_, final = first_;
    mix_taps_[0] = tight - first_;
    for (int i = 0; i < count_; ++i) {
      const float more = stages_[i].predicted();
      mix_taps_[i + 1] = more;
      all = all + more;
      final = final + shares_[i] * more;
      if (i == 0) second_ = all;
    }
    final_ = between(final, low, high);
    const double mixed = between(first_ + mix_.predict(mix_taps_), low, high);
    centre_ = static_cast<int64_t>(std::floor(final_));
    const double middle = static_cast<double>(centre_);
    const float off = static_cast<float>(final_ - middle);
    const F8 guess = {off,
                      off,
                      off,
                      static_cast<float>(mixed - middle),
                      static_cast<float>(first_ - middle),
                      static_cast<float>(between(second_, low, high) - middle),
                      static_cast<float>(between(all, low, high) - middle),
                      static_cast<float>(tight - middle)};
    guess_ = guess;
  }

  // The latest samples of this channel, then those of its partner.
  template <int kTaps, int kOther>
  PIXELS_INLINE void gather(double* taps) const {
    if (!partner_) {
      std::memcpy(taps, history_.newest(), kTaps * sizeof(double));
      return;
    }
    std::memcpy(taps, history_.newest(), (kTaps - kOther) * sizeof(double));
    std::memcpy(taps + kTaps - kOther, partner_->history_.newest(), kOther * sizeof(double));
  }

  PIXELS_INLINE void set_contexts() {
    F8 scale{};
    int classes[kExperts];
#pragma GCC unroll 8
    for (int i = 0; i < kExperts; ++i) {
      classes[i] = clamped((bits_of(energy_[i] + 0.02f) >> 21) - kFirstClass, 0, kClasses - 1);
      used_[i] = scales_ + i * kClasses + classes[i];
      scale[i] = used_[i]->get();
    }
    scale = scale * 0.6f + 0.03f;
    sharpness_ = 1.0f / scale;
    const float spread = scale[1];
    width_log2_ = 0;
    if (spread >= 1.3f)
      while (width_log2_ < 28 && static_cast<float>(1 << width_log2_) < spread) ++width_log2_;
    const int rising = clamped(classes[0] - classes[2] + 8, 0, 15);
    const int quarter = clamped(static_cast<int>(guess_[0] * 4.0f), 0, 3);
    float apart = 0.0f;
#pragma GCC unroll 4
    for (int i = 4; i < kExperts; ++i) {
      const float distance = std::fabs(guess_[i] - guess_[0]);
      apart = distance > apart ? distance : apart;
    }
    const float relative = apart / (spread + 0.05f) * 8.0f + 1.0f;
    const int agreement = clamped((bits_of(relative) >> 22) - 254, 0, 11);
    const float other = partner_first_ ? partner_->missed_ : 0.0f;
    contexts_[0] = classes[1] % 64 * kNodes;
    contexts_[1] = (rising * 4 + quarter) * kNodes;
    contexts_[2] = (fifth(missed_) * 5 + fifth(missed_before_)) * kNodes;
    contexts_[3] = (fifth(other) * 12 + agreement) * kNodes;
    mixers_[0] = rising * kNodes;
    mixers_[1] = agreement * kNodes;
  }

  // Tells a sample from the centre: on which side, in which span, where in it. Returns the sample.
  template <typename Coder>
  PIXELS_INLINE int32_t code_sample(Coder& coder, int32_t sample) {
    near_tail_ = F8{} + 1.0f;
    far_tail_ = F8{};
    const bool up = ask(coder, 1.0f, 0, 0, sample > centre_);
    const float side = up ? 1.0f : -1.0f;
    const int64_t goal = up ? sample - centre_ - 1 : centre_ - sample;
    const int64_t last = up ? high_ - centre_ - 1 : centre_ - low_;
    near_tail_ = tail(side, 0);
    far_tail_ = F8{};
    int64_t low = 0, span = int64_t{1} << width_log2_;
    int spans = 0;
    while (low + span <= last) {
      const int node = 1 + (spans < kUnary ? spans : kUnary);
      if (!ask(coder, side, low + span, node, goal >= low + span)) break;
      low += span;
      if (++spans >= 3) span *= 2;
    }
    int64_t high = low + span <= last ? low + span : last + 1;
    for (int depth = 0, place = 1; high - low > 1; ++depth) {
      const int64_t middle = (low + high) >> 1;
      int bit = goal >= middle;
      if (depth < 2) {
        bit = ask(coder, side, middle, 11 + (spans < 3 ? spans : 3) * 4 + place, bit);
        place = place * 2 + bit;
      } else {
        bit = coder.code(bit, 32768);
      }
      if (bit) low = middle;
      else high = middle;
    }
    const int64_t found = up ? centre_ + 1 + low : centre_ - low;
    return static_cast<int32_t>(found < low_ ? low_ : found > high_ ? high_ : found);
  }

  // The experts' probabilities of more than so many samples to a side.
  PIXELS_INLINE F8 tail(float side, int64_t threshold) const {
    const float place = 0.5f + side * static_cast<float>(threshold);
    const F8 away = (place - guess_) * side * sharpness_;
    return 1.0f / (1.0f + exponential(between(away, -40.0f, 40.0f)));
  }

  // Whether it goes on beyond a threshold.
  template <typename Coder>
  __attribute__((noinline)) int ask(Coder& coder, float side, int64_t threshold, int node, int bit) {
    const F8 here = tail(side, threshold);
    Question question;
    question.outward = at_least(here - far_tail_, 0.0f) + 1e-20f;
    question.inward = at_least(near_tail_ - here, 0.0f) + 1e-20f;
#pragma GCC unroll 4
    for (int i = 0; i < kContexts; ++i) question.slots[i] = contexts_[i] + node;
    question.mixers[0] = mixers_[0] + node;
    question.mixers[1] = mixers_[1] + node;
    question.map = mixers_[0] + node;
    bit = mixer_.code(coder, question, bit);
    if (bit) near_tail_ = here;
    else far_tail_ = here;
    return bit;
  }

  PIXELS_INLINE void learn(int32_t sample) {
    const double value = sample;
    const F8 off = guess_ - static_cast<float>(sample - centre_);
    const F8 wrongs = off < 0.0f ? -off : off;
    if (seen_ < 4096) ++seen_;
    const F8 rates = at_least(F8{0.2f, 0.05f, 0.012f, 0.05f, 0.02f, 0.02f, 0.03f, 0.2f},
                              1.0f / static_cast<float>(seen_));
    energy_ = energy_ + (wrongs - energy_) * rates;
#pragma GCC unroll 8
    for (int i = 0; i < kExperts; ++i) used_[i]->add(wrongs[i]);
    const double missed = value - final_;
    missed_before_ = missed_;
    missed_ = static_cast<float>(missed) * sharpness_[1];
    const int way = sign(missed);
    float input = static_cast<float>(value - first_);
    for (int i = 0; i < count_; ++i) {
      const float predicted = stages_[i].predicted();
      shares_[i] = shares_[i] + static_cast<float>(way * sign(predicted)) * 0.002f;
      const float error = input - predicted;
      stages_[i].learn(error, input);
      input = error;
    }
    mix_.learn(mix_taps_, value - first_);
    wide_.learn(wide_taps_, value);
    tight_.learn(tight_taps_, value);
    history_.push(value);
  }

  int32_t* samples_;
  int64_t low_, high_;
  const ChannelCoder* partner_;
  bool partner_first_;
  int count_, seen_;
  double first_, second_, final_;
  int64_t centre_;
  float missed_, missed_before_;
  float shares_[kStages];
  int width_log2_;
  uint32_t contexts_[kContexts], mixers_[kMixers];
  Average* used_[kExperts];
  alignas(64) F8 guess_, energy_, sharpness_, near_tail_, far_tail_;
  alignas(64) double wide_taps_[kWide], tight_taps_[kTight], mix_taps_[kMix];
  History<double, kWide> history_;
  LeastSquares<kWide> wide_;
  LeastSquares<kTight> tight_;
  LeastSquares<kMix> mix_;
  Gradient stages_[kStages];
  Mixer mixer_;
  Average scales_[kExperts * kClasses];
};

// The channels of a sound take turns.
template <typename Coder>
void code_sound(const Sound& sound, Coder& coder) {
  const pixels::Memory memory(sizeof(ChannelCoder) * sound.count);
  ChannelCoder* channels = memory.as<ChannelCoder>();
  for (int i = 0; i < sound.count; ++i) {
    const int partner = sound.channels[i].partner;
    channels[i].start(sound.channels[i], partner == i ? nullptr : channels + partner, partner < i,
                      kEffortTable[sound.effort]);
  }
  for (size_t at = 0; at < sound.length; ++at)
    for (int i = 0; i < sound.count; ++i) channels[i].code(coder, at);
}

}  // namespace PIXELS_ISA
}  // namespace latentpack::sounds
