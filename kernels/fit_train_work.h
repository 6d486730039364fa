// The memory of an iteration and the loops over it, one set for each instruction set.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "fit_train.h"

namespace latentpack::fit_train {

using Floats = std::vector<float>;

// A latent grid, with zeros around it: rows of `stride` floats.
struct Grid {
  size_t height = 0, width = 0, stride = 0;
  size_t start = 0;   // of the first value in the vector of latents
  size_t padded = 0;  // of the first float in the padded vector
  size_t count() const { return height * width; }
  // The index of (row, column) in the padded vector.
  size_t at(ptrdiff_t row, ptrdiff_t column) const {
    return padded + static_cast<size_t>((row + kPadTop) * static_cast<ptrdiff_t>(stride) + column +
                                        kPadLeft);
  }
};

// The parameters in the orders in which the matrix products read them.
struct Panels {
  Floats w1, w2, out, back;  // context: [inputs][hidden], [hidden][hidden], [hidden + inputs][2],
                             // [hidden + 2][inputs with gradients]
  Floats sw1, sw2, sskip;    // synthesis: [active][width], [width][colours], [active][colours]
  Floats sw1_back, sskip_back;  // [width][grids], [colours][grids]; these four include the unit
};

// What one thread adds to.
struct Share {
  Floats latent_grads;         // padded
  Floats w1, w2, w3;           // [m][k] vectors of the context: (hidden + 2, inputs), ...
  Floats b1, b2, b3;           // vectors: [grids][hidden], [hidden], [grids][2]
  Floats sw1, sw2, sskip, sb1, sb2;
  Floats k1, k2, c1, c2;       // vectors
  Floats up;                   // [levels][4], plain
  Floats scratch;
  double nats = 0, squares = 0;
};

class Barrier {
 public:
  explicit Barrier(int threads) : threads_(threads) {}
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    const size_t turn = turn_;
    if (++waiting_ == threads_) {
      waiting_ = 0;
      ++turn_;
      all_.notify_all();
    } else {
      all_.wait(lock, [&] { return turn_ != turn; });
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable all_;
  int threads_, waiting_ = 0;
  size_t turn_ = 0;
};

struct Work {
  Net net;
  Offsets at;
  size_t height, width, plane;  // plane: pixels rounded up to whole blocks
  int threads;
  Grid grids[kGrids];
  size_t latents = 0, padded = 0;
  Floats values;                            // padded latents
  Floats reference;                         // padded latents of another frame
  // [channels of the level][plane of the level]; the prediction's planes are the last of level 0.
  Floats stacks[kGrids], stack_grads[kGrids];
  size_t planes[kGrids];
  Floats a, b, x_grad, b_grad;              // [colours][plane]; a becomes its own gradient
  Panels panels;
  std::vector<Share> shares;
  // The arguments of this iteration.
  Objective objective;
  Frame frame;
  const float* params;

  // Grids in the stack of a level.
  size_t channels(int level) const { return static_cast<size_t>(kGrids - std::max(level, net.first)); }
  // Where plane c of a picture begins, and its size.
  size_t plane_rows(int c) const { return net.half && c ? height / 2 : height; }
  size_t plane_columns(int c) const { return net.half && c ? width / 2 : width; }
  size_t plane_start(int c) const {
    if (!net.half) return static_cast<size_t>(c) * height * width;
    return c ? height * width + static_cast<size_t>(c - 1) * (height / 2) * (width / 2) : 0;
  }
};

// The range of `count` items that a thread does.
struct Range {
  size_t first, last;
};
inline Range range_of(size_t count, int thread, int threads) {
  const auto t = static_cast<size_t>(thread), n = static_cast<size_t>(threads);
  return {count * t / n, count * (t + 1) / n};
}

struct Loops {
  int lanes;  // floats of a vector
  void (*context)(Work&, int thread);
  void (*upsample)(Work&, int thread, int level);
  void (*synthesise)(Work&, int thread);
  void (*convolve)(Work&, int thread, int layer);
  void (*convolve_back)(Work&, int thread, int layer);
  void (*synthesise_back)(Work&, int thread);
  void (*upsample_back)(Work&, int thread, int level);
  void (*soften)(const float*, size_t, float, float, uint32_t, float*, float*);
  void (*adam)(const Adam&, size_t, const float*, const float*, float*, float*, float*);
};

extern const Loops kLoopsScalar;
#if defined(__x86_64__) && defined(__GNUC__)
extern const Loops kLoopsAvx2;
extern const Loops kLoopsAvx512;
#endif

}  // namespace latentpack::fit_train
