// Vectors of floats whose results do not depend on the machine: sums in a fixed order, exp and log
// from additions and multiplications. Compiled once for each instruction set, in its namespace.
#pragma once

#include <cstdint>
#include <cstring>

// Vectors are arguments of inlined functions only, so that no ABI is concerned.
#pragma GCC diagnostic ignored "-Wpsabi"
#define PIXELS_INLINE __attribute__((always_inline)) inline

namespace latentpack::pixels {
namespace PIXELS_ISA {

template <int N>
struct Lanes;
template <>
struct Lanes<8> {
  typedef float F __attribute__((vector_size(32)));
  typedef int32_t I __attribute__((vector_size(32)));
};
template <>
struct Lanes<16> {
  typedef float F __attribute__((vector_size(64)));
  typedef int32_t I __attribute__((vector_size(64)));
};
using F8 = Lanes<8>::F;
using I8 = Lanes<8>::I;
using F16 = Lanes<16>::F;
typedef float F4 __attribute__((vector_size(16)));

template <typename V>
PIXELS_INLINE V load(const float* at) {
  V v;
  std::memcpy(&v, at, sizeof v);
  return v;
}
template <typename V>
PIXELS_INLINE void store(float* at, V v) {
  std::memcpy(at, &v, sizeof v);
}

template <typename V>
PIXELS_INLINE V at_least(V v, float low) {
  return v > low ? v : V{} + low;
}
template <typename V>
PIXELS_INLINE V at_most(V v, float high) {
  return v < high ? v : V{} + high;
}
// NaN becomes `low`.
template <typename V>
PIXELS_INLINE V between(V v, float low, float high) {
  return at_most(at_least(v, low), high);
}
PIXELS_INLINE float between(float v, float low, float high) {
  v = v > low ? v : low;
  return v < high ? v : high;
}

PIXELS_INLINE float sum(F8 v) {
  const F4 low = __builtin_shufflevector(v, v, 0, 1, 2, 3);
  const F4 high = __builtin_shufflevector(v, v, 4, 5, 6, 7);
  const F4 four = low + high;
  return (four[0] + four[2]) + (four[1] + four[3]);
}
PIXELS_INLINE float sum(F16 v) {
  const F8 low = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7);
  const F8 high = __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  return sum(low + high);
}
PIXELS_INLINE F16 join(F8 a, F8 b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

// e^v for |v| <= 40, with a relative error of 2e-6.
PIXELS_INLINE F8 exponential(F8 v) {
  const F8 y = v * 1.44269504f;
  const F8 whole = (y + 12582912.0f) - 12582912.0f;  // rounds to an integer
  const F8 f = y - whole;
  F8 p = f * 0.00133335581f + 0.00961812911f;
  p = p * f + 0.0555041087f;
  p = p * f + 0.240226507f;
  p = p * f + 0.693147181f;
  p = p * f + 1.0f;
  const I8 scale = (__builtin_convertvector(whole, I8) + 127) << 23;
  F8 power;
  std::memcpy(&power, &scale, sizeof power);
  return p * power;
}

// The natural logarithm of normal positive numbers, with an error of 2e-5.
PIXELS_INLINE F8 logarithm(F8 v) {
  I8 bits;
  std::memcpy(&bits, &v, sizeof bits);
  const F8 exponent = __builtin_convertvector((bits >> 23) - 127, F8);
  const I8 fraction = (bits & 0x7FFFFF) | 0x3F800000;
  F8 m;
  std::memcpy(&m, &fraction, sizeof m);
  m = m - 1.0f;
  F8 p = m * 0.0442458242f - 0.191267088f;
  p = p * m + 0.413558483f;
  p = p * m - 0.708373129f;
  p = p * m + 1.44183600f;
  return (exponent + p * m) * 0.693147181f;
}

}  // namespace PIXELS_ISA
}  // namespace latentpack::pixels
