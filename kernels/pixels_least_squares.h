// Least squares over what surrounds a pixel, solved anew for every pixel.
#pragma once

#include "pixels_vector.h"

namespace latentpack::pixels {
namespace PIXELS_ISA {

constexpr int kTaps = 16;
constexpr int kColumns = kTaps + 1;  // of the normal equations, the right side last
constexpr int kEquations = kColumns * kTaps;
constexpr float kTiny = 1e-20f;  // keeps decaying sums away from denormal numbers

// The weight of a pixel falls by `across` per column and by `down` per row of distance.
class LeastSquares {
 public:
  static size_t floats(int width) { return (2 * static_cast<size_t>(width) + 1) * kEquations; }

  LeastSquares(float* memory, int width, float down, float across, float ridge)
      : width_(width), down_(down), across_(across), ridge_(ridge),
        sums_(memory), ahead_(sums_ + static_cast<size_t>(width) * kEquations),
        behind_(ahead_ + static_cast<size_t>(width) * kEquations) {}

  // Before a row: sums of the rows above from each column to the right end.
  void start_row() {
    std::memset(behind_, 0, kEquations * sizeof(float));
    F16 next[kColumns] = {};
    for (int x = width_ - 1; x >= 0; --x) {
      const float* sums = sums_ + static_cast<size_t>(x) * kEquations;
      float* ahead = ahead_ + static_cast<size_t>(x) * kEquations;
#pragma GCC unroll 17
      for (int j = 0; j < kColumns; ++j) {
        next[j] = load<F16>(sums + kTaps * j) + across_ * next[j];
        store(ahead + kTaps * j, next[j]);
      }
    }
  }

  // The weights of two models for the pixel in column x, by Gauss-Jordan elimination without
  // pivoting. Each step waits for a division: two systems at once take little more than one.
  static PIXELS_INLINE void solve(const LeastSquares& first, const LeastSquares& second, int x,
                                  F16 weights[2]) {
    F16 a[kColumns], b[kColumns];
    first.gather(x, a);
    second.gather(x, b);
    F16 over_a{}, over_b{};
#pragma GCC unroll 16
    for (int k = 0; k < kTaps; ++k) {
      over_a[k] = eliminate(a, k);
      over_b[k] = eliminate(b, k);
    }
    weights[0] = a[kTaps] * over_a;
    weights[1] = b[kTaps] * over_b;
  }

  // The pixel in column x had these taps and this value.
  PIXELS_INLINE void learn(int x, const float* taps, float value) {
    float* sums = sums_ + static_cast<size_t>(x) * kEquations;
    const F16 r = load<F16>(taps);
#pragma GCC unroll 17
    for (int j = 0; j < kColumns; ++j) {
      const float factor = j < kTaps ? taps[j] : value;
      const F16 now = down_ * load<F16>(sums + kTaps * j) + (r * factor + kTiny);
      store(sums + kTaps * j, now);
      store(behind_ + kTaps * j, across_ * (load<F16>(behind_ + kTaps * j) + now));
    }
  }

 private:
  // The normal equations in column x, by columns, with a ridge.
  PIXELS_INLINE void gather(int x, F16* a) const {
    const float* ahead = ahead_ + static_cast<size_t>(x) * kEquations;
#pragma GCC unroll 17
    for (int j = 0; j < kColumns; ++j)
      a[j] = load<F16>(behind_ + kTaps * j) + down_ * load<F16>(ahead + kTaps * j);
#pragma GCC unroll 16
    for (int k = 0; k < kTaps; ++k) a[k][k] = (a[k][k] + ridge_) + a[k][k] * 0.0005f;
  }

  // Takes unknown k out of all other equations; returns 1 / its factor in its own.
  static PIXELS_INLINE float eliminate(F16* a, int k) {
    const float pivot = a[k][k];
    const float over = pivot > 1e-6f ? 1.0f / pivot : 0.0f;
    alignas(64) float factors[kTaps];
    store(factors, a[k] * over);
    const float right = a[kTaps][k] * over;
    F16 column = a[k];
    column[k] = 0.0f;
#pragma GCC unroll 16
    for (int j = k + 1; j < kTaps; ++j) a[j] = a[j] - column * factors[j];
    a[kTaps] = a[kTaps] - column * right;
    return over;
  }

  int width_;
  float down_, across_, ridge_;
  float* sums_;
  float* ahead_;
  float* behind_;
};

}  // namespace PIXELS_ISA
}  // namespace latentpack::pixels
