// A plane of a tile, pixel by pixel: experts predict, a mixture decides, everything learns.
#pragma once

#include <cmath>

#include "pixels_canvas.h"
#include "pixels_coder.h"
#include "pixels_least_squares.h"
#include "pixels_match.h"
#include "pixels_mixer.h"

namespace latentpack::pixels {
namespace PIXELS_ISA {

constexpr int kClasses = 80;  // of scale, four to an octave
constexpr int kBlend = 4, kTextured = 5, kMedian = 6, kSigned = 7;  // experts after the four
constexpr int kMatched = 6;  // a context
constexpr int kTextures = 1024, kSigns = 625;

// An average that forgets: sum / count.
struct Average {
  float sum, count;
  PIXELS_INLINE float get() const { return sum / count; }
  PIXELS_INLINE void add(float value, float most) {
    sum = sum + value;
    count = count + 1.0f;
    if (count > most) {
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
PIXELS_INLINE int clamped(int v, int low, int high) { return v < low ? low : v > high ? high : v; }

// 0 to 4: how far and on which side of 0.
PIXELS_INLINE int fifth(float v, float near) {
  const float far = near * 3.0f;
  return v < -near ? (v < -far ? 0 : 1) : v > near ? (v > far ? 4 : 3) : 2;
}

// What the steps of coding a pixel hand on.
struct Pixel {
  int x;
  ptrdiff_t at;              // in the canvases
  float* wrong;              // the experts' absolute errors
  float left, above;         // its neighbours
  float missed;              // error of the linked plane
  F8 energy;                 // the experts' errors around
  Average* scales[kExperts];
  int scale_class;           // of the blend
  F8 sharpness;              // 1 / scale of each expert
  float spread, near;        // scale of the blend, and what counts as near it
  int west, north, other, third;  // signs of errors
  alignas(64) float taps[kReach] = {};
  float power, drift[2];
  F8 guess;                  // what the experts predict
  float median, blend, best, apart;
  int texture;
  Average* sign;
  int centre, agreement, width_log2, width_class;
  uint32_t contexts[kContexts] = {};
  F8 near_tail, far_tail;    // probabilities of the ends of what is still possible
};

template <typename Coder>
class PlaneCoder {
 public:
  PlaneCoder(const Plane& plane, const Canvas* const* canvases, const Canvas* const* misses,
             Coder& coder)
      : plane_(plane), own_(*canvases[0]), canvases_(canvases), misses_(misses), coder_(coder),
        links_(plane.links), taps_(canvases, plane.links), width_(own_.width),
        fits_(2 * LeastSquares::floats(width_) * sizeof(float)), mixing_(Mixer::bytes()),
        tables_((kExperts * kClasses + kTextures + kSigns) * sizeof(Average)),
        wrong_(3 * static_cast<size_t>(width_ + 3) * sizeof(F8)), mixer_(mixing_.as<void>()) {
    int depth = 0;
    while (plane.peak >> depth) ++depth;
    unit_ = depth > 8 ? 1.0f / static_cast<float>(1 << (depth - 8))
                      : static_cast<float>(1 << (8 - depth));
    per_unit_ = 1.0f / unit_;
    top_ = static_cast<float>(plane.peak) * unit_;
    step_ = 2 * plane.error + 1;
    floor_ = unit_ * 0.15f;
    first_class_ = bits_of(floor_) >> 21;
    scales_ = tables_.as<Average>();
    textures_ = scales_ + kExperts * kClasses;
    signs_ = textures_ + kTextures;
    for (int i = 0; i < kExperts * kClasses; ++i) {
      const int32_t bits = (first_class_ + i % kClasses) << 21;
      std::memcpy(&scales_[i].sum, &bits, sizeof bits);
      scales_[i].count = 1.0f;
    }
    for (int i = 0; i < kTextures + kSigns; ++i) textures_[i] = {0.0f, 0.5f};
    per_tap_ = 1.0f / static_cast<float>(taps_.count);
  }

  void run() {
    const float ridge = unit_ < 1.0f ? 4.0f * unit_ : 4.0f;
    float* memory = fits_.as<float>();
    LeastSquares tight(memory, width_, 0.72f, 0.8f, ridge);
    LeastSquares wide(memory + LeastSquares::floats(width_), width_, 0.92f, 0.95f, ridge);
    for (int y = 0; y < own_.height; ++y) {
      own_.start_row(y);
      tight.start_row();
      wide.start_row();
      for (int x = 0; x < width_; ++x) pixel(y, x, tight, wide);
      own_.end_row(y);
    }
  }

 private:
  // Absolute errors of the experts in one of the last three rows.
  float* wrong(int y, int x) const {
    return wrong_.as<float>() + kExperts * (static_cast<size_t>(y + 3) % 3 * (width_ + 3) + x + 2);
  }

  PIXELS_INLINE void pixel(int y, int x, LeastSquares& tight, LeastSquares& wide) {
    Pixel p;
    look(p, y, x);
    predict(p, tight, wide);
    set_contexts(p, y);
    uint16_t& sample = plane_.samples[static_cast<size_t>(y) * width_ + x];
    sample = static_cast<uint16_t>(code_sample(p, sample));
    learn(p, static_cast<float>(sample) * unit_, tight, wide);
  }

  // What is known around a pixel: earlier errors, and scales from them.
  PIXELS_INLINE void look(Pixel& p, int y, int x) {
    p.x = x;
    p.at = static_cast<ptrdiff_t>(y) * own_.stride + x;
    p.wrong = wrong(y, x);
    p.left = own(p, 0, -1);
    p.above = own(p, -1, 0);
    const float* miss = misses_[0]->origin + p.at;
    const int stride = own_.stride;
    p.missed = links_ ? misses_[-1]->origin[p.at] : 0.0f;
    const float other = links_ ? p.missed : miss[-1 - stride];
    const float third = links_ > 1 ? misses_[-2]->origin[p.at] : miss[1 - stride];
    p.energy = ((load<F8>(wrong(y, x - 1)) + load<F8>(wrong(y - 1, x))) * 2.0f +
                ((load<F8>(wrong(y - 1, x - 1)) + load<F8>(wrong(y - 1, x + 1))) +
                 (load<F8>(wrong(y, x - 2)) + load<F8>(wrong(y - 2, x))))) *
               0.125f;
    if (links_) p.energy = p.energy * 0.8f + std::fabs(p.missed) * 0.16f;
    const F8 level = p.energy + floor_;
    I8 classes;
    std::memcpy(&classes, &level, sizeof classes);
    classes = (classes >> 21) - first_class_;
    F8 sums{}, counts{};
#pragma GCC unroll 8
    for (int i = 0; i < kExperts; ++i) {
      p.scales[i] = scales_ + i * kClasses + clamped(classes[i], 0, kClasses - 1);
      sums[i] = p.scales[i]->sum;
      counts[i] = p.scales[i]->count;
    }
    p.scale_class = clamped(classes[kBlend], 0, kClasses - 1);
    const F8 scale = sums / counts * 0.55f + unit_ * 0.04f;
    p.sharpness = 1.0f / scale;
    p.spread = scale[kBlend];
    p.near = p.spread * 0.7f;
    p.west = fifth(miss[-1], p.near);
    p.north = fifth(miss[-stride], p.near);
    p.other = fifth(other, p.near);
    p.third = fifth(third, p.near);
  }

  PIXELS_INLINE void predict(Pixel& p, const LeastSquares& tight, const LeastSquares& wide) {
    taps_.read(p.at, p.taps);
    const F16 t0 = load<F16>(p.taps), t1 = load<F16>(p.taps + 16), t2 = load<F16>(p.taps + 32);
    p.power = sum((t0 * t0 + t1 * t1) + t2 * t2) * per_tap_;
    F16 weights[2];
    LeastSquares::solve(tight, wide, p.x, weights);
    float guess[kExperts];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      guess[i] = between(p.left + sum(weights[i] * t0), 0.0f, top_);
      const float* w = drifts_[i];
      p.drift[i] = guess[i] + sum((load<F16>(w) * t0 + load<F16>(w + 16) * t1) +
                                  load<F16>(w + 32) * t2);
      guess[2 + i] = between(p.drift[i], 0.0f, top_);
    }
    guess[kMedian] = between(median(p), 0.0f, top_);
    const F8 trust = 1.0f / (p.energy * p.energy + unit_ * unit_ * 0.1f);
    const F8 t = trust * trust;
    const float weight = (t[0] + t[1]) + (t[2] + t[3]);
    p.blend =
        ((t[0] * guess[0] + t[1] * guess[1]) + (t[2] * guess[2] + t[3] * guess[3])) / weight;
    guess[kBlend] = p.blend;
    p.texture = texture(p);
    const float textured = textures_[p.texture].get();
    p.sign = signs_ + ((p.west * 5 + p.north) * 5 + p.other) * 5 + p.third;
    const float signed_ = p.sign->get();
    guess[kTextured] = between(p.blend + textured, 0.0f, top_);
    guess[kSigned] = between(p.blend + signed_, 0.0f, top_);
    p.best = between(p.blend + (textured + signed_) * 0.5f, 0.0f, top_);
    p.median = guess[kMedian];
    p.apart = 0.0f;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const float distance = std::fabs(guess[i] - p.best);
      p.apart = distance > p.apart ? distance : p.apart;
    }
    p.guess = load<F8>(guess);
  }

  // What the decisions of a pixel have in common.
  PIXELS_INLINE void set_contexts(Pixel& p, int y) {
    const float exact = p.best * per_unit_;
    p.centre = static_cast<int>(exact + 0.5f);
    const float off = exact - static_cast<float>(p.centre) + 0.5f;
    const int quarter = clamped(static_cast<int>(off * 4.0f), 0, 3);
    const float relative = p.apart / (p.spread + unit_ * 0.05f) * 8.0f + 1.0f;
    p.agreement = clamped((bits_of(relative) >> 22) - 254, 0, 11);
    const float steps = p.spread * per_unit_ / static_cast<float>(step_);
    p.width_log2 = 0;
    if (steps >= 1.3f)
      while (p.width_log2 < 15 && static_cast<float>(1 << p.width_log2) < steps) ++p.width_log2;
    p.width_class = p.width_log2 < 7 ? p.width_log2 : 7;
    const int scale = p.scale_class;
    const int median = fifth(p.median - p.best, p.near);
    const int left = fifth(p.left - p.best, p.spread * 2.0f);
    const int above = fifth(p.above - p.best, p.spread * 2.0f);
    p.contexts[0] = (scale * 4 + quarter) * 64;
    p.contexts[1] = ((p.west * 5 + p.north) * 40 + (scale >> 1)) * 64;
    p.contexts[2] = ((p.texture & 255) * 4 + (p.width_class >> 1)) * 64;
    p.contexts[3] = ((p.other * 5 + p.third) * 40 + (scale >> 1)) * 64;
    p.contexts[4] = (p.agreement * kClasses + scale) * 64;
    p.contexts[5] =
        (((median * 5 + left) * 5 + above) * 8 + (scale >> 3 < 7 ? scale >> 3 : 7)) * 64;
    set_matched(p, y);
    for (int i = 0; i < kContexts; ++i) {
      if (i == kMatched) continue;
      mixer_.expect(i, slot(i, p.contexts[i], 0));
      mixer_.expect(i, slot(i, p.contexts[i], 16));
    }
  }

  // Contexts of exact samples.
  PIXELS_INLINE void set_matched(Pixel& p, int y) {
    const int linked = links_ ? whole(canvases_[-1]->origin[p.at]) : 0;
    const int second = links_ > 1 ? whole(canvases_[-2]->origin[p.at]) : 0;
    const int left = whole(p.left), above = whole(p.above);
    const int before = whole(own(p, -1, -1)), after = whole(own(p, -1, 1));
    const uint32_t close = hash(left, above, before);
    const uint32_t planes = hash(linked, second, after);
    p.contexts[7] = links_ ? hash(linked, second ^ (links_ > 1 ? 0 : left), p.centre)
                           : close + hash(after, p.centre, 1);
    const uint32_t far = hash(whole(own(p, 0, -2)), whole(own(p, -2, 0)), 2);
    match_.look_up(y * width_ + p.x, close + planes * 3 + far * 5, plane_.samples);
  }

  // Codes a sample as steps from the centre: which side, which span of steps, where in it. Returns
  // the sample of that step.
  PIXELS_INLINE int code_sample(Pixel& p, int sample) {
    const int error = plane_.error, centre = p.centre;
    const int lowest = -((centre + error) / step_);
    const int highest = (plane_.peak - centre + error) / step_;
    int want = 0;  // the step, known to an encoder
    if (!Coder::kDecodes)
      want = (sample >= centre ? sample - centre + error : sample - centre - error) / step_;
    p.far_tail = F8{};
    p.near_tail = p.far_tail + 1.0f;
    const bool up = lowest < 0 ? ask(p, 1, 0, 0, want >= 0) : true;
    const int side = up ? 1 : -1;
    const int goal = up ? want : -want - 1, last = up ? highest : -lowest - 1;
    p.near_tail = tail(p, side, 0);
    p.far_tail = F8{};
    int low = 0, span = 1 << p.width_log2, spans = 0;
    while (low + span <= last) {
      const int node = (up ? 1 : 11) + (spans < 9 ? spans : 9);
      if (!ask(p, side, low + span, node, goal >= low + span)) break;
      low += span;
      if (++spans >= 3) span *= 2;
    }
    int high = low + span <= last ? low + span : last + 1;
    for (int depth = 0, place = 1; high - low > 1; ++depth) {
      const int middle = (low + high) >> 1;
      int node = 62;
      if (depth < 3)
        node = (up ? 21 : 41) + (depth < 2 ? (spans < 3 ? spans : 3) * 3 - 1 : 8) + place;
      const int bit = ask(p, side, middle, node, goal >= middle);
      if (bit) low = middle;
      else high = middle;
      place = place * 2 + bit;
    }
    return clamped(centre + (up ? low : -low - 1) * step_, 0, plane_.peak);
  }

  // Twice the place between two samples where so many steps to a side begin.
  PIXELS_INLINE int place(const Pixel& p, int side, int threshold) const {
    return 2 * (p.centre + side * threshold * step_) - step_;
  }

  // The experts' probabilities of more than so many steps to a side, or of as many.
  PIXELS_INLINE F8 tail(const Pixel& p, int side, int threshold) const {
    const F8 away = (static_cast<float>(place(p, side, threshold)) * (unit_ * 0.5f) - p.guess) *
                    (side > 0 ? p.sharpness : -p.sharpness);
    return 1.0f / (1.0f + exponential(between(away, -30.0f, 30.0f)));
  }

  // Codes whether a sample is so many steps or more to a side.
  PIXELS_INLINE int ask(Pixel& p, int side, int threshold, int node, int answer) {
    const F8 here = tail(p, side, threshold);
    Question question;
    question.outward = at_least(here - p.far_tail, 0.0f) + 1e-10f;
    question.inward = at_least(p.near_tail - here, 0.0f) + 1e-10f;
#pragma GCC unroll 8
    for (int i = 0; i < kContexts; ++i) question.slots[i] = slot(i, p.contexts[i], node);
    const int twice = place(p, side, threshold), expected = 2 * match_.expected;
    const bool outward = side > 0 ? expected > twice : expected < twice;
    question.slots[kMatched] = (match_.match_class * 2 + outward) * 64 + node;
    question.mixers[0] = p.width_class * 64 + node;
    question.mixers[1] = 512 + p.scale_class * 64 + node;
    const int matched = match_.match_class;
    question.mixers[2] = 5632 + (matched > 1 ? 10 + matched : p.agreement) * 64 + node;
    question.maps[0] = (p.scale_class >> 1) * 64 + node;
    question.maps[1] = 2560 + (p.west * 5 + p.north) * 64 + node;
    const int bit = mixer_.code(coder_, question, answer);
    if (bit) p.near_tail = here;
    else p.far_tail = here;
    return bit;
  }

  PIXELS_INLINE void learn(Pixel& p, float value, LeastSquares& tight, LeastSquares& wide) {
    match_.learn(static_cast<int>(value * per_unit_));
    own_.origin[p.at] = value;
    misses_[0]->origin[p.at] = value - p.best;
    const F8 off = p.guess - value;
    const F8 wrongs = off < 0.0f ? -off : off;
    store(p.wrong, wrongs);
#pragma GCC unroll 8
    for (int i = 0; i < kExperts; ++i) p.scales[i]->add(wrongs[i] + 1e-6f, 400.0f);
    textures_[p.texture].add(value - p.blend, 100.0f);
    p.sign->add(value - p.blend, 100.0f);
    tight.learn(p.x, p.taps, value - p.left);
    wide.learn(p.x, p.taps, value - p.left);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      float* w = drifts_[i];
      const float rate = per_tap_ * 0.02f * (value - p.drift[i]) / (1.0f + p.power);
      for (int k = 0; k < kReach; k += 16)
        store(w + k, load<F16>(w + k) + load<F16>(p.taps + k) * rate);
    }
  }

  PIXELS_INLINE float own(const Pixel& p, int down, int right) const {
    return own_.origin[p.at + static_cast<ptrdiff_t>(down) * own_.stride + right];
  }

  // The edge-detecting predictor of JPEG-LS, on differences to the linked plane.
  PIXELS_INLINE float median(const Pixel& p) const {
    float a = p.left, b = p.above, c = own(p, -1, -1), more = 0.0f;
    if (links_) {
      const float* linked = canvases_[-1]->origin + p.at;
      a = a - linked[-1];
      b = b - linked[-own_.stride];
      c = c - linked[-1 - own_.stride];
      more = linked[0];
    }
    const float low = a < b ? a : b, high = a < b ? b : a;
    return (c >= high ? low : c <= low ? high : a + b - c) + more;
  }

  // Which neighbours are above the prediction, and the sign of the linked plane's error.
  PIXELS_INLINE int texture(const Pixel& p) const {
    const float m = p.blend, ww = own(p, 0, -2), nn = own(p, -2, 0);
    return (p.left > m) | (p.above > m) << 1 | (own(p, -1, -1) > m) << 2 |
           (own(p, -1, 1) > m) << 3 | (ww > m) << 4 | (nn > m) << 5 |
           (p.above * 2.0f - nn > m) << 6 | (p.left * 2.0f - ww > m) << 7 |
           (p.missed > 0.0f) << 8 | (p.missed < 0.0f) << 9;
  }

  // The counter of a node in a context; the last context is hashed, 16 nodes side by side.
  static PIXELS_INLINE uint32_t slot(int i, uint32_t context, uint32_t node) {
    if (i < kContexts - 1) return context + node;
    return (context + (node >> 4) * 0x165667B1u) * 0x9E3779B1u >> 20 << 4 | (node & 15);
  }
  PIXELS_INLINE int whole(float v) const { return static_cast<int>(v * per_unit_); }
  static PIXELS_INLINE uint32_t hash(int a, int b, int c) {
    return static_cast<uint32_t>(a) * 0x9E3779B1u ^ static_cast<uint32_t>(b) * 0x85EBCA77u ^
           static_cast<uint32_t>(c) * 0xC2B2AE3Du;
  }

  const Plane& plane_;
  const Canvas& own_;
  const Canvas* const* canvases_;
  const Canvas* const* misses_;
  Coder& coder_;
  int links_;
  Taps taps_;
  int width_;
  Memory fits_, mixing_, tables_, wrong_;
  Mixer mixer_;
  Match match_;
  float unit_, per_unit_, top_, floor_, per_tap_;
  int step_, first_class_;
  Average *scales_, *textures_, *signs_;
  alignas(64) float drifts_[2][kReach] = {};
};

// The planes of a tile; each has a canvas of samples and one of what the prediction missed.
template <typename Coder>
void code_tile(const Tile& tile, Coder& coder) {
  const int count = tile.count;
  CanvasList canvases(count, tile.height, tile.width), misses(count, tile.height, tile.width);
  for (int i = 0; i < count; ++i)
    PlaneCoder<Coder>(tile.planes[i], canvases.at(i), misses.at(i), coder).run();
}

}  // namespace PIXELS_ISA
}  // namespace latentpack::pixels
