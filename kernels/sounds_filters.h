// Filters that learn: least squares over the latest samples, and gradient descent over many.
#pragma once

#include "pixels_vector.h"

namespace latentpack::sounds {
namespace PIXELS_ISA {

using namespace pixels::PIXELS_ISA;
using pixels::PIXELS_ISA::between;
using pixels::PIXELS_ISA::load;
using pixels::PIXELS_ISA::store;
using pixels::PIXELS_ISA::sum;
typedef double D4 __attribute__((vector_size(32)));

// Two vectors as one of twice the length: GCC makes poor code of vectors that the machine lacks.
template <typename V>
struct Pair {
  V low, high;
  PIXELS_INLINE Pair operator+(Pair other) const { return {low + other.low, high + other.high}; }
  PIXELS_INLINE Pair operator-(Pair other) const { return {low - other.low, high - other.high}; }
  PIXELS_INLINE Pair operator*(Pair other) const { return {low * other.low, high * other.high}; }
  template <typename Number>
  PIXELS_INLINE Pair operator*(Number by) const {
    return {low * by, high * by};
  }
};

template <typename V>
PIXELS_INLINE V load(const double* at) {
  V v;
  std::memcpy(&v, at, sizeof v);
  return v;
}

#ifdef SOUNDS_VECTORS_OF_64_BYTES
typedef double Doubles __attribute__((vector_size(64)));  // 8
using Floats = F16;
PIXELS_INLINE Floats both(F8 low, F8 high) { return join(low, high); }
PIXELS_INLINE D4 halves(Doubles v) {
  return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
}
PIXELS_INLINE Floats floats(const float* at) { return load<Floats>(at); }
PIXELS_INLINE Doubles doubles(const double* at) { return load<Doubles>(at); }
PIXELS_INLINE void store(double* at, Doubles v) { std::memcpy(at, &v, sizeof v); }
#else
using Doubles = Pair<D4>;
using Floats = Pair<F8>;
PIXELS_INLINE Floats both(F8 low, F8 high) { return {low, high}; }
PIXELS_INLINE float sum(Floats v) { return sum(v.low + v.high); }
PIXELS_INLINE D4 halves(Doubles v) { return v.low + v.high; }
PIXELS_INLINE Floats floats(const float* at) { return {load<F8>(at), load<F8>(at + 8)}; }
PIXELS_INLINE Doubles doubles(const double* at) { return {load<D4>(at), load<D4>(at + 4)}; }
PIXELS_INLINE void store(float* at, Floats v) {
  store(at, v.low);
  store(at + 8, v.high);
}
PIXELS_INLINE void store(double* at, Doubles v) {
  std::memcpy(at, &v.low, sizeof v.low);
  std::memcpy(at + 4, &v.high, sizeof v.high);
}
#endif

PIXELS_INLINE double sum(Doubles v) {
  const D4 four = halves(v);
  return (four[0] + four[2]) + (four[1] + four[3]);
}
// NaN becomes `low`.
PIXELS_INLINE double between(double v, double low, double high) {
  v = v > low ? v : low;
  return v < high ? v : high;
}

// The last numbers, the newest first. All members start as zeros, see Memory.
template <typename T, int kLength>
class History {
 public:
  void start() { at_ = kRoom; }
  PIXELS_INLINE const T* newest() const { return numbers_ + at_; }
  PIXELS_INLINE void push(T v) {
    if (at_ == 0) {
      std::memcpy(numbers_ + kRoom + 1, numbers_, (kLength - 1) * sizeof(T));
      at_ = kRoom + 1;
    }
    numbers_[--at_] = v;
  }

 private:
  static constexpr int kRoom = kLength < 512 ? 512 : kLength;
  int at_;
  T numbers_[kRoom + kLength];
};

// Weights that minimise the squared errors of the past, older ones weighing less; they are solved
// for every `every` samples. Members start as zeros.
template <int kTaps>
class LeastSquares {
 public:
  void start(int every, int first, double keep) {
    every_ = every;
    left_ = first;
    keep_ = keep;
    add_ = 1.0 - keep;
  }

  PIXELS_INLINE double predict(const double* taps) const {
    Doubles even{}, odd{};
#pragma GCC unroll 2
    for (int j = 0; j < kTaps; j += 16) {
      even = even + doubles(weights_ + j) * doubles(taps + j);
      if (j + 8 < kTaps) odd = odd + doubles(weights_ + j + 8) * doubles(taps + j + 8);
    }
    return sum(even + odd);
  }

  PIXELS_INLINE void learn(const double* taps, double value) {
    const double keep = keep_, add = add_;
    Doubles x[kTaps / 8];
#pragma GCC unroll 4
    for (int j = 0; j < kTaps / 8; ++j) x[j] = doubles(taps + 8 * j);
#pragma GCC unroll 4
    for (int block = 0; block < kTaps / 8; ++block) {
      for (int i = 8 * block; i < 8 * block + 8; ++i) {
        double* row = sums_[i];
        const double by = taps[i] * add;
#pragma GCC unroll 4
        for (int j = block; j < kTaps / 8; ++j)
          store(row + 8 * j, doubles(row + 8 * j) * keep + x[j] * by);
      }
    }
    const double by = value * add;
#pragma GCC unroll 4
    for (int j = 0; j < kTaps / 8; ++j)
      store(right_ + 8 * j, doubles(right_ + 8 * j) * keep + x[j] * by);
    if (--left_ == 0) {
      left_ = every_;
      solve();
    }
  }

 private:
  // By elimination (L D L') without pivoting; what is below the diagonal of `rest` has no meaning.
  __attribute__((noinline)) void solve() {
    alignas(64) double rest[kTaps][kTaps], factors[kTaps][kTaps], over[kTaps];
    std::memcpy(rest, sums_, sizeof rest);
    for (int i = 0; i < kTaps; ++i) rest[i][i] = rest[i][i] + 1.0;
    double* z = weights_;
    std::memcpy(z, right_, sizeof weights_);
    for (int k = 0; k < kTaps; ++k) {
      const double pivot = rest[k][k];
      const double one_over = 1.0 / (pivot > 1e-9 ? pivot : 1e-9), known = z[k];
      over[k] = one_over;
      for (int i = k + 1; i < kTaps; ++i) {
        const double factor = rest[k][i] * one_over;
        factors[i][k] = factor;
        for (int j = i & ~7; j < kTaps; j += 8)
          store(rest[i] + j, doubles(rest[i] + j) - doubles(rest[k] + j) * factor);
        z[i] = z[i] - factor * known;
      }
    }
    for (int k = 0; k < kTaps; ++k) z[k] = z[k] * over[k];
    for (int k = kTaps - 1; k > 0; --k)
      for (int j = 0; j < k; ++j) z[j] = z[j] - factors[k][j] * z[k];
  }

  int every_, left_;
  double keep_, add_;
  alignas(64) double weights_[kTaps], right_[kTaps], sums_[kTaps][kTaps];
};

// A long filter that follows the gradient, by the power of what it sees (NLMS).
class Gradient {
 public:
  static constexpr int kLongest = 2048;

  void start(int length, float rate) {
    length_ = length;
    rate_ = rate;
    history_.start();
  }
  PIXELS_INLINE float predicted() const { return next_; }

  // The prediction was wrong by `error`, and `value` comes next in the history.
  PIXELS_INLINE void learn(float error, float value) {
    const float last = history_.newest()[length_ - 1];
    const float by = rate_ * error / (static_cast<float>(power_) + static_cast<float>(length_));
    const double in = value, out = last;
    power_ = power_ + (in * in - out * out);
    power_ = power_ > 0.0 ? power_ : 0.0;
    history_.push(value);
    const float* now = history_.newest();
    const float* before = now + 1;
    Floats sums[4] = {};
    int i = 0;
    for (; i + 64 <= length_; i += 64) {
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) step(sums[k], i + 16 * k, now, before, by);
    }
    if (i < length_) step(sums[0], i, now, before, by);
    if (i + 16 < length_) step(sums[1], i + 16, now, before, by);
    const float dot = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    next_ = between(dot, -8589934592.0f, 8589934592.0f);
  }

 private:
  PIXELS_INLINE void step(Floats& total, int i, const float* now, const float* before, float by) {
    const Floats weights = floats(weights_ + i) + floats(before + i) * by;
    store(weights_ + i, weights);
    total = total + weights * floats(now + i);
  }

  int length_;  // 16, 32 or a multiple of 64
  float rate_, next_;
  double power_;
  alignas(64) float weights_[kLongest];
  History<float, kLongest + 1> history_;
};

}  // namespace PIXELS_ISA
}  // namespace latentpack::sounds
