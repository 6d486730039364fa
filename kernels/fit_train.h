// Forward and backward of an overfitted picture codec: rate of the latents under the context
// network, and distortion of the picture that upsampling and synthesis make of them. Frames of a
// video also have a prediction, which the synthesis takes too, and the latents of another frame,
// which the context network takes too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "rans.h"

namespace latentpack::fit_train {

constexpr int kGrids = 7;
constexpr int kCross = 5;  // taps in coarser grids
constexpr int kMaxTaps = 14;
constexpr int kMaxHidden = 64;
constexpr int kMaxWidth = 128;
constexpr int kTemporal = 5;  // taps in another frame's grid
constexpr int kNear = 8;      // neighbours on all sides
constexpr int kPasses = 4;
constexpr int kBlock = 96;  // positions or pixels at once: their activations stay in the caches
constexpr int kWidest = 16;  // floats of the widest vector
constexpr int kPadTop = 3, kPadBottom = 1, kPadLeft = 3, kPadRight = 2;

// The sizes of a network, and where its parameters lie in the one vector.
struct Net {
  int taps;  // causal ones; 0: the grid is coded in passes
  int hidden, width, colours;
  int temporal;  // 0 or kTemporal
  int extra;     // planes of the prediction: 0 or colours
  int first;     // finest grid that is not all zeros
  bool half;     // the second and third colour are means of 2 x 2 pixels
  bool passes() const { return taps == 0; }
  int own() const { return passes() ? kNear + kPasses - 1 : taps; }  // inputs of the grid itself
  int inputs() const { return own() + kCross + temporal; }
  int planes() const { return kGrids + extra; }  // that the synthesis takes
  int grids() const { return kGrids - first; }   // of those, that are not zeros
  int active() const { return grids() + extra; }
};

struct Offsets {
  size_t w1, b1, w2, b2, w3, skip, b3, up, sw1, sb1, sw2, sb2, sskip, k1, c1, k2, c2, count;
};

Offsets offsets(const Net& net);

// Memory for a picture's size and a number of threads, used again in every iteration.
struct Work;

struct WorkDeleter {
  void operator()(Work* work) const;
};
using WorkPtr = std::unique_ptr<Work, WorkDeleter>;

WorkPtr make_work(const Net& net, size_t height, size_t width, int threads);
size_t latent_count(const Work& work);
const Net& net_of(const Work& work);
// Samples of a picture, and of its prediction.
size_t samples(const Work& work);

// What the objective is: bits / pixels + weight * mean squared error.
struct Objective {
  float weight;
  float b_min, step, rows;  // scale of a table row: b_min * exp(step * row)
  float unit;  // of the latents as the synthesis takes them
  float prediction_unit;  // of the prediction, the same
};

struct Result {
  double bits, mse;
};

// What an iteration is about. Latents are the finest grid first.
struct Frame {
  const float* picture;       // planes, one after another
  const int16_t* prediction;  // the same; nullptr where there are no extra planes
  const float* reference;     // latents of another frame; nullptr = zeros
};

// Gradients of the objective. The mean squared error of planes of different sizes is that of
// (6 Y + U + V) / 8.
Result step(Work& work, Isa isa, const Objective& objective, const Frame& frame,
            const float* latents, const float* params, float* latent_grads, float* param_grads);

// One iteration's values of latents: soft-rounded, with noise, soft-rounded again; `slope` is the
// derivative. temperature 0 rounds, with slope 1.
void soften(Isa isa, const float* latents, size_t count, float temperature, float noise,
            uint32_t seed, float* values, float* slope);

struct Adam {
  float rate, beta1, beta2, epsilon;
  float correct1, correct2;  // 1 / (1 - beta ** t)
};

// Adam in place; the gradient is grads * slope.
void adam(Isa isa, const Adam& adam, size_t count, const float* grads, const float* slope,
          float* latents, float* first, float* second);

}  // namespace latentpack::fit_train
