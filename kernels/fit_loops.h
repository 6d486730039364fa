// Loops over positions and pixels, compiled once per instruction set. The includer defines
// FIT_TARGET (a target attribute or nothing), FIT_LANES (32-bit lanes of a vector) and
// FIT_MADD(a, b): lane by lane the sum of the products of both 16-bit halves, modulo 2^32.
// Floating point needs -ffp-contract=off: products and sums are rounded one by one.

#include <cstring>
#include <utility>

#include "fit.h"

namespace latentpack::fit {
namespace {

#define FIT_INLINE FIT_TARGET __attribute__((always_inline)) inline

constexpr int kLanes = FIT_LANES;
typedef uint32_t U __attribute__((vector_size(4 * FIT_LANES)));
typedef int32_t I __attribute__((vector_size(4 * FIT_LANES)));
typedef float F __attribute__((vector_size(4 * FIT_LANES)));
typedef uint16_t U16 __attribute__((vector_size(2 * FIT_LANES)));
typedef int16_t I16 __attribute__((vector_size(2 * FIT_LANES)));
typedef uint8_t U8 __attribute__((vector_size(FIT_LANES)));

template <typename V, typename T>
FIT_INLINE V load(const T* at) {
  V v;
  std::memcpy(&v, at, sizeof v);
  return v;
}

template <typename V, typename T>
FIT_INLINE void store(T* at, V v) {
  std::memcpy(at, &v, sizeof v);
}

FIT_INLINE U splat(int32_t x) { return U{} + static_cast<uint32_t>(x); }
FIT_INLINE F splat(float x) { return F{} + x; }

FIT_INLINE I clamp(I x, int low, int high) {
  const I l = I{} + low, h = I{} + high;
  x = x > l ? x : l;
  return x < h ? x : h;
}

// Sums of kTile units over pairs of inputs.
FIT_INLINE void sum_tile(const U* x, int pairs, const int32_t* weights, U (&acc)[kTile]) {
  for (int p = 0; p < pairs; ++p, weights += kTile) {
    for (int j = 0; j < kTile; ++j) acc[j] += FIT_MADD(x[p], splat(weights[j]));
  }
}

FIT_INLINE U sum(const U* x, int pairs, const int32_t* weights) {
  U acc{};
  for (int p = 0; p < pairs; ++p) acc += FIT_MADD(x[p], splat(weights[p]));
  return acc;
}

FIT_INLINE void positions(const Model& m, int k, const U* x, I& mu, I& row) {
  U h1[kMaxHidden / 2], h2[kMaxHidden / 2];
  for (int tile = 0; tile < m.hidden; tile += kTile) {
    U acc[kTile];
    for (int j = 0; j < kTile; ++j) acc[j] = splat(m.b1[k][tile + j] + (1 << 5));
    sum_tile(x, m.pairs, m.w1 + tile * m.pairs, acc);
    for (int j = 0; j < kTile; j += 2) {
      const I a = clamp((I)acc[j] >> 6, 0, 32767), b = clamp((I)acc[j + 1] >> 6, 0, 32767);
      h1[(tile + j) / 2] = (U)a | (U)b << 16;
    }
  }
  for (int tile = 0; tile < m.hidden; tile += kTile) {
    U acc[kTile];
    for (int j = 0; j < kTile; ++j) acc[j] = splat(m.b2[tile + j]);
    sum_tile(h1, m.hidden / 2, m.w2 + tile * m.hidden / 2, acc);
    for (int j = 0; j < kTile; j += 2) {
      const U before = h1[(tile + j) / 2];
      I a = clamp((I)acc[j] >> 12, 0, 32767), b = clamp((I)acc[j + 1] >> 12, 0, 32767);
      a = clamp(a + (I)(before & 0xFFFF), 0, 32767);
      b = clamp(b + (I)(before >> 16), 0, 32767);
      h2[(tile + j) / 2] = (U)a | (U)b << 16;
    }
  }
  U out[2];
  for (int o = 0; o < 2; ++o) {
    out[o] = sum(h2, m.hidden / 2, m.w3[o]) + ((sum(x, m.pairs, m.skip[o]) + splat(m.b3[k][o])) << 6);
  }
  mu = clamp((I)(out[0] + (1u << 13)) >> 14, -16 * kLimit, 16 * kLimit);
  row = clamp((I)(out[1] + (1u << 17)) >> 18, 0, kScales - 1);
}

FIT_TARGET void distribution(const Model& m, int k, const int16_t* const* inputs, size_t n,
                             Wave to) {
  for (size_t i = 0; i < n; i += kLanes) {
    U x[kMaxInputs / 2];
    for (int p = 0; p < m.pairs; ++p) {
      const U low = __builtin_convertvector(load<U16>(inputs[2 * p] + i), U);
      const U high = __builtin_convertvector(load<U16>(inputs[2 * p + 1] + i), U);
      x[p] = low | high << 16;
    }
    I mu, row;
    positions(m, k, x, mu, row);
    const I mean = (mu + 8) >> 4, f = mu - mean * 16, negative = f >> 31;
    const I index = row * kFractions + ((f ^ negative) - negative);
    store(to.mean + i, __builtin_convertvector(mean, I16));
    store(to.sign + i, __builtin_convertvector(negative | 1, I16));
    store(to.index + i, __builtin_convertvector((U)index, U8));
  }
}

FIT_INLINE F relu(F x) { return x > F{} ? x : F{}; }

FIT_TARGET void up_rows(const float* const* rows, const float* kernel, size_t n, float* out) {
  const F k0 = splat(kernel[0]), k1 = splat(kernel[1]), k2 = splat(kernel[2]), k3 = splat(kernel[3]);
  for (size_t i = 0; i < n; i += kLanes) {
    const F x0 = load<F>(rows[0] + i), x1 = load<F>(rows[1] + i), x2 = load<F>(rows[2] + i),
            x3 = load<F>(rows[3] + i);
    store(out + i, k0 * x0 + k1 * x1 + k2 * x2 + k3 * x3);
  }
}

FIT_TARGET void up_columns(const float* row, const float* kernel, size_t n, float* out) {
  const F k0 = splat(kernel[0]), k1 = splat(kernel[1]), k2 = splat(kernel[2]), k3 = splat(kernel[3]);
  for (size_t i = 0; i < n; i += kLanes) {
    const float* at = row + i;
    const F x0 = load<F>(at - 2), x1 = load<F>(at - 1), x2 = load<F>(at), x3 = load<F>(at + 1),
            x4 = load<F>(at + 2);
    float even[kLanes], odd[kLanes];
    store(even, k0 * x0 + k1 * x1 + k2 * x2 + k3 * x3);
    store(odd, k3 * x1 + k2 * x2 + k1 * x3 + k0 * x4);
    for (int j = 0; j < kLanes; ++j) {
      out[2 * (i + j)] = even[j];
      out[2 * (i + j) + 1] = odd[j];
    }
  }
}

constexpr int kVectors = 2;  // that are summed at once, to fill the pauses
constexpr size_t kStep = kVectors * kLanes;

template <int kColours, int kPlanes>
FIT_TARGET void pixels_of(const Net& net, const Layer& layer, const float* const* u, size_t n,
                          float* const* a) {
  const float *w1 = layer.w1.data(), *skip = layer.skip.data();
  for (size_t i = 0; i < n; i += kStep) {
    F v[kPlanes + 1][kVectors], out[kColours][kVectors];
    for (int g = 0; g < kPlanes; ++g)
      for (int e = 0; e < kVectors; ++e)
        v[g][e] = load<F>(u[g] + i + e * kLanes) * splat(layer.units[g]);
    for (int c = 0; c < kColours; ++c) {
      for (int e = 0; e < kVectors; ++e) out[c][e] = splat(net.b2[c]);
      for (int g = 0; g < kPlanes; ++g)
        for (int e = 0; e < kVectors; ++e) out[c][e] += splat(skip[c * kPlanes + g]) * v[g][e];
    }
    for (int j = 0; j < net.width; ++j) {
      F h[kVectors];
      for (int e = 0; e < kVectors; ++e) h[e] = splat(net.b1[j]);
      for (int g = 0; g < kPlanes; ++g)
        for (int e = 0; e < kVectors; ++e) h[e] += splat(w1[j * kPlanes + g]) * v[g][e];
      for (int e = 0; e < kVectors; ++e) h[e] = relu(h[e]);
      for (int c = 0; c < kColours; ++c)
        for (int e = 0; e < kVectors; ++e) out[c][e] += splat(net.w2[c * net.width + j]) * h[e];
    }
    for (int c = 0; c < kColours; ++c)
      for (int e = 0; e < kVectors; ++e) store(a[c] + i + e * kLanes, out[c][e]);
  }
}

using Pixels = decltype(Loops::pixels);

template <int kColours, size_t... kPlanes>
Pixels pixels_for(int planes, std::index_sequence<kPlanes...>) {
  constexpr Pixels made[] = {pixels_of<kColours, static_cast<int>(kPlanes)>...};
  return made[planes];
}

FIT_TARGET void pixels(const Net& net, const Layer& layer, const float* const* u, size_t n,
                       float* const* a) {
  constexpr std::make_index_sequence<kMaxPlanes + 1> every;
  const Pixels chosen = net.colours == 1 ? pixels_for<1>(layer.count, every)
                                         : pixels_for<kMaxColours>(layer.count, every);
  chosen(net, layer, u, n, a);
}

template <int kColours>
FIT_INLINE void around_of(const Net& net, bool first, const float* const* rows, size_t n,
                          float* const* out) {
  const float *kernel = first ? net.k1 : net.k2, *bias = first ? net.c1 : net.c2;
  for (size_t i = 0; i < n; i += kStep) {
    F acc[kColours][kVectors];
    for (int c = 0; c < kColours; ++c)
      for (int e = 0; e < kVectors; ++e) acc[c][e] = splat(bias[c]);
    for (int tap = 0; tap < 9 * kColours; ++tap) {
      const float* at = rows[tap / 3] + i + tap % 3 - 1;
      for (int e = 0; e < kVectors; ++e) {
        const F x = load<F>(at + e * kLanes);
        for (int c = 0; c < kColours; ++c) acc[c][e] += splat(kernel[9 * kColours * c + tap]) * x;
      }
    }
    for (int c = 0; c < kColours; ++c) {
      for (int e = 0; e < kVectors; ++e) {
        const F x = load<F>(rows[3 * c + 1] + i + e * kLanes) + acc[c][e];
        store(out[c] + i + e * kLanes, first ? relu(x) : x);
      }
    }
  }
}

FIT_TARGET void around(const Net& net, bool first, const float* const* rows, size_t n,
                       float* const* out) {
  net.colours == 1 ? around_of<1>(net, first, rows, n, out)
                   : around_of<kMaxColours>(net, first, rows, n, out);
}

FIT_TARGET void means(const float* above, const float* below, size_t n, float* out) {
  for (size_t i = 0; i < n; ++i)
    out[i] = 0.25f * ((above[2 * i] + below[2 * i]) + (above[2 * i + 1] + below[2 * i + 1]));
}

template <typename T>
FIT_INLINE void integers(const float* x_hat, size_t n, float top, T* samples) {
  for (size_t i = 0; i < n; ++i) {
    const float scaled = top * x_hat[i] + 0.5f;
    const float above = scaled > 0.0f ? scaled : 0.0f;
    samples[i] = static_cast<T>(static_cast<int>(above < top ? above : top));
  }
}

FIT_TARGET void to_integers(const float* x_hat, size_t n, int top, void* samples) {
  if (top == 255)
    integers(x_hat, n, 255.0f, static_cast<uint8_t*>(samples));
  else
    integers(x_hat, n, static_cast<float>(top), static_cast<int16_t*>(samples));
}

#define FIT_LOOPS {distribution, up_rows, up_columns, pixels, around, means, to_integers}

}  // namespace
}  // namespace latentpack::fit
