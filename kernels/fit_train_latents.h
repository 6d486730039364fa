// Latents between iterations: soft rounding with noise, and Adam. Included once per instruction
// set, after fit_train_vectors.h.

namespace latentpack::fit_train {
namespace {

struct Soft {
  V value, slope;
};

// Agustsson and Theis (2020, arXiv:2006.09952): floor(x) + 1/2 + tanh(r / T) / (2 tanh(1 / (2T))).
FIT_INLINE Soft soft_round(V x, float inverse, float scale) {
  const V shifted = x + 12582912.0f;
  const V nearest = shifted - 12582912.0f;
  const V below = nearest - choose(nearest > x, all(1.0f), V{});
  const V r = (x - below - 0.5f) * inverse;
  const V e = exponential(r + r);
  const V tanh = 1.0f - 2.0f / (e + 1.0f);
  return {below + 0.5f + scale * tanh, scale * inverse * (1.0f - tanh * tanh)};
}

// About normal, of unit variance: the sum of four uniform bytes of a hash of the index.
FIT_INLINE V noise_of(Vu index, uint32_t seed) {
  Vu h = index * 0x9E3779B1u + seed;
  h = (h ^ (h >> 16)) * 0x21F0AAADu;
  h = (h ^ (h >> 15)) * 0x735A2D97u;
  h ^= h >> 15;
  const Vu sum = (h & 255u) + ((h >> 8) & 255u) + ((h >> 16) & 255u) + (h >> 24);
  return (__builtin_convertvector(reinterpret_cast<Vi>(sum), V) - 510.0f) * 6.7658e-3f;
}

FIT_TARGET void soften(const float* latents, size_t count, float temperature, float noise,
                       uint32_t seed, float* values, float* slope) {
  const float inverse = temperature > 0 ? 1 / temperature : 0;
  const float scale = temperature > 0 ? 0.5f / std::tanh(0.5f * inverse) : 0;
  for (size_t i = 0; i < count; i += W) {
    float part[3][W] = {};
    const size_t n = count - i < W ? count - i : W;
    std::memcpy(part[0], latents + i, n * sizeof(float));
    const V x = load(part[0]);
    if (temperature > 0) {
      const Soft once = soft_round(x, inverse, scale);
      const V moved = noise_of(reinterpret_cast<Vu>(lanes() + static_cast<int32_t>(i)), seed);
      const Soft twice = soft_round(fma(moved, all(noise), once.value), inverse, scale);
      store(part[1], twice.value);
      store(part[2], twice.slope * once.slope);
    } else {
      store(part[1], (x + 12582912.0f) - 12582912.0f);
      store(part[2], all(1.0f));
    }
    std::memcpy(values + i, part[1], n * sizeof(float));
    std::memcpy(slope + i, part[2], n * sizeof(float));
  }
}

FIT_TARGET void adam(const Adam& a, size_t count, const float* grads, const float* slope,
                     float* latents, float* first, float* second) {
  for (size_t i = 0; i < count; ++i) {
    const float g = grads[i] * slope[i];
    first[i] += (g - first[i]) * (1 - a.beta1);
    second[i] += (g * g - second[i]) * (1 - a.beta2);
    latents[i] -= a.rate * a.correct1 * first[i] / (std::sqrt(second[i] * a.correct2) + a.epsilon);
  }
}

}  // namespace
}  // namespace latentpack::fit_train
