// An iteration of fitting a picture: memory, order of the parts, threads, sums over threads.
#include "fit_train.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

#include "fit_train_work.h"

namespace latentpack::fit_train {

Offsets offsets(const Net& net) {
  const auto h = static_cast<size_t>(net.hidden), n = static_cast<size_t>(net.inputs()),
             s = static_cast<size_t>(net.width), c = static_cast<size_t>(net.colours);
  size_t end = 0;
  const auto take = [&end](size_t count) {
    const size_t start = end;
    end += count;
    return start;
  };
  Offsets at;
  at.w1 = take(h * n);
  at.b1 = take(kGrids * h);
  at.w2 = take(h * h);
  at.b2 = take(h);
  at.w3 = take(2 * h);
  at.skip = take(2 * n);
  at.b3 = take(kGrids * 2);
  at.up = take((kGrids - 1) * 4);
  at.sw1 = take(s * static_cast<size_t>(net.planes()));
  at.sb1 = take(s);
  at.sw2 = take(c * s);
  at.sb2 = take(c);
  at.sskip = take(c * static_cast<size_t>(net.planes()));
  at.k1 = take(c * c * 9);
  at.c1 = take(c);
  at.k2 = take(c * c * 9);
  at.c2 = take(c);
  at.count = end;
  return at;
}

namespace {

const Loops& loops_for(Isa isa) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (isa == Isa::kAvx512) return kLoopsAvx512;
  if (isa == Isa::kAvx2) return kLoopsAvx2;
#endif
  return kLoopsScalar;
}

void resize_share(Share& share, const Work& work) {
  const Net& net = work.net;
  const auto h = static_cast<size_t>(net.hidden), n = static_cast<size_t>(net.inputs()),
             s = static_cast<size_t>(net.width), c = static_cast<size_t>(net.colours),
             active = static_cast<size_t>(net.active());
  share.latent_grads.resize(work.padded);
  share.w1.resize((h + 2) * n * kWidest);
  share.w2.resize(h * h * kWidest);
  share.w3.resize(2 * h * kWidest);
  share.b1.resize(kGrids * h * kWidest);
  share.b2.resize(h * kWidest);
  share.b3.resize(kGrids * 2 * kWidest);
  share.sw1.resize(s * active * kWidest);
  share.sw2.resize(c * s * kWidest);
  share.sskip.resize(c * active * kWidest);
  share.sb1.resize(s * kWidest);
  share.sb2.resize(c * kWidest);
  for (Floats* k : {&share.k1, &share.k2}) k->resize(c * c * 9 * kWidest);
  for (Floats* b : {&share.c1, &share.c2}) b->resize(c * kWidest);
  share.up.resize((kGrids - 1) * 4);
  const size_t rows = (7 * c + 4) * (work.width + 16 + 6 * kWidest);
  const size_t blocks = (6 * h + 2 * n + 3 + 2 * s + c) * kBlock;
  share.scratch.resize(std::max(rows, blocks));
}

void clear(Share& share) {
  for (Floats* sums :
       {&share.latent_grads, &share.w1, &share.w2, &share.w3, &share.b1, &share.b2, &share.b3,
        &share.sw1, &share.sw2, &share.sskip, &share.sb1, &share.sb2, &share.k1, &share.k2,
        &share.c1, &share.c2, &share.up})
    std::fill(sums->begin(), sums->end(), 0.0f);
  share.nats = share.squares = 0;
}

// to[c][r] = from[r][c]; rows of `to` are `stride`, and begin at `to`.
void transpose(const float* from, size_t rows, size_t columns, float* to, size_t stride) {
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = 0; c < columns; ++c) to[c * stride + r] = from[r * columns + c];
}

// The columns [rows, count] of weights [rows, stride] from `column` on, times `unit`.
void take_columns(const float* from, size_t rows, size_t stride, size_t column, size_t count,
                  float unit, Floats& to) {
  to.clear();
  for (size_t r = 0; r < rows; ++r)
    for (size_t i = 0; i < count; ++i) to.push_back(unit * from[r * stride + column + i]);
}

// Weights [rows, planes] of the planes that are not zeros: as [active][rows], and those of the
// grids as [rows][grids].
void planes_panels(const Work& work, const float* from, size_t rows, Floats& to, Floats& back) {
  const auto planes = static_cast<size_t>(work.net.planes()),
             grids = static_cast<size_t>(work.net.grids()),
             extra = static_cast<size_t>(work.net.extra);
  take_columns(from, rows, planes, 0, grids, work.objective.unit, back);
  to.resize((grids + extra) * rows);
  transpose(back.data(), rows, grids, to.data(), rows);
  Floats others;
  take_columns(from, rows, planes, kGrids, extra, 1, others);
  transpose(others.data(), rows, extra, to.data() + grids * rows, rows);
}

void make_panels(Work& work) {
  const Offsets& at = work.at;
  const float* p = work.params;
  const auto h = static_cast<size_t>(work.net.hidden), n = static_cast<size_t>(work.net.inputs()),
             s = static_cast<size_t>(work.net.width), c = static_cast<size_t>(work.net.colours),
             own = n - static_cast<size_t>(work.net.temporal);
  Panels& to = work.panels;
  to.w1.resize(n * h);
  transpose(p + at.w1, h, n, to.w1.data(), h);
  to.w2.resize(h * h);
  transpose(p + at.w2, h, h, to.w2.data(), h);
  to.out.resize((h + n) * 2);
  transpose(p + at.w3, 2, h, to.out.data(), 2);
  transpose(p + at.skip, 2, n, to.out.data() + 2 * h, 2);
  Floats skip_back;
  take_columns(p + at.w1, h, n, 0, own, 1, to.back);
  take_columns(p + at.skip, 2, n, 0, own, 1, skip_back);
  to.back.insert(to.back.end(), skip_back.begin(), skip_back.end());
  to.sw2.resize(s * c);
  transpose(p + at.sw2, c, s, to.sw2.data(), c);
  planes_panels(work, p + at.sw1, s, to.sw1, to.sw1_back);
  planes_panels(work, p + at.sskip, c, to.sskip, to.sskip_back);
}

void take_latents(const Work& work, const float* latents, Floats& to) {
  for (size_t k = static_cast<size_t>(work.net.first); k < kGrids; ++k) {
    const Grid& grid = work.grids[k];
    for (size_t r = 0; r < grid.height; ++r)
      std::memcpy(to.data() + grid.at(static_cast<ptrdiff_t>(r), 0),
                  latents + grid.start + r * grid.width, grid.width * sizeof(float));
  }
}

void give_latent_grads(const Work& work, float* to) {
  for (size_t k = static_cast<size_t>(work.net.first); k < kGrids; ++k) {
    const Grid& grid = work.grids[k];
    const float* own = work.stack_grads[k].data() + (kGrids - 1 - k) * work.planes[k];
    for (size_t r = 0; r < grid.height; ++r) {
      float* row = to + grid.start + r * grid.width;
      std::memcpy(row, own + r * grid.width, grid.width * sizeof(float));
      for (const Share& share : work.shares) {
        const float* part = share.latent_grads.data() + grid.at(static_cast<ptrdiff_t>(r), 0);
        for (size_t i = 0; i < grid.width; ++i) row[i] += part[i];
      }
    }
  }
}

// to[i] = scale * the sum of vector i over lanes and threads.
void reduce(const Work& work, Floats Share::*sums, size_t first, size_t count, int lanes,
            float scale, float* to) {
  for (size_t i = 0; i < count; ++i) {
    float sum = 0;
    for (const Share& share : work.shares)
      for (int lane = 0; lane < lanes; ++lane)
        sum += (share.*sums)[(first + i) * static_cast<size_t>(lanes) + static_cast<size_t>(lane)];
    to[i] = scale * sum;
  }
}

void give_param_grads(const Work& work, int lanes, float* to) {
  const Offsets& at = work.at;
  const auto h = static_cast<size_t>(work.net.hidden), n = static_cast<size_t>(work.net.inputs()),
             s = static_cast<size_t>(work.net.width), c = static_cast<size_t>(work.net.colours);
  const auto give = [&](Floats Share::*sums, size_t start, size_t count, size_t first = 0) {
    reduce(work, sums, first, count, lanes, 1, to + start);
  };
  // Sums [rows][active] to the columns of the planes that are not zeros.
  const auto give_planes = [&](Floats Share::*sums, size_t start, size_t rows) {
    const auto planes = static_cast<size_t>(work.net.planes()),
               grids = static_cast<size_t>(work.net.grids()),
               extra = static_cast<size_t>(work.net.extra);
    for (size_t r = 0; r < rows; ++r) {
      float* row = to + start + r * planes;
      std::fill(row, row + planes, 0.0f);
      reduce(work, sums, r * (grids + extra), grids, lanes, work.objective.unit, row);
      reduce(work, sums, r * (grids + extra) + grids, extra, lanes, 1, row + kGrids);
    }
  };
  give(&Share::w1, at.w1, h * n);
  give(&Share::w1, at.skip, 2 * n, h * n);
  give(&Share::b1, at.b1, kGrids * h);
  give(&Share::w2, at.w2, h * h);
  give(&Share::b2, at.b2, h);
  give(&Share::w3, at.w3, 2 * h);
  give(&Share::b3, at.b3, kGrids * 2);
  reduce(work, &Share::up, 0, (kGrids - 1) * 4, 1, 1, to + at.up);
  give_planes(&Share::sw1, at.sw1, s);
  give(&Share::sb1, at.sb1, s);
  give(&Share::sw2, at.sw2, c * s);
  give(&Share::sb2, at.sb2, c);
  give_planes(&Share::sskip, at.sskip, c);
  give(&Share::k1, at.k1, c * c * 9);
  give(&Share::c1, at.c1, c);
  give(&Share::k2, at.k2, c * c * 9);
  give(&Share::c2, at.c2, c);
}

void run(Work& work, const Loops& loops, int thread, Barrier& barrier) {
  const auto part = [&](auto function, auto... arguments) {
    function(work, thread, arguments...);
    barrier.wait();
  };
  clear(work.shares[static_cast<size_t>(thread)]);
  loops.context(work, thread);
  for (int level = kGrids - 1; level >= 0; --level) part(loops.upsample, level);
  part(loops.synthesise);
  part(loops.convolve, 1);
  part(loops.convolve, 2);
  part(loops.convolve_back, 2);
  part(loops.convolve_back, 1);
  part(loops.synthesise_back);
  for (int level = 0; level + 1 < kGrids; ++level) part(loops.upsample_back, level);
}

}  // namespace

void WorkDeleter::operator()(Work* work) const { delete work; }

WorkPtr make_work(const Net& net, size_t height, size_t width, int threads) {
  WorkPtr made(new Work());
  Work& work = *made;
  work.net = net;
  work.at = offsets(net);
  work.height = height;
  work.width = width;
  work.threads = threads;
  work.plane = (height * width + kBlock - 1) / kBlock * kBlock;
  for (size_t k = 0; k < kGrids; ++k) {
    Grid& grid = work.grids[k];
    grid.height = (height + (size_t{1} << k) - 1) >> k;
    grid.width = (width + (size_t{1} << k) - 1) >> k;
    grid.stride = grid.width + kPadLeft + kPadRight;
    // A vector's length more: loops over rows go on past the end of the last one.
    work.planes[k] = (grid.count() + kBlock - 1) / kBlock * kBlock + 2 * kWidest;
    const size_t channels = work.channels(static_cast<int>(k));
    work.stacks[k].resize((channels + static_cast<size_t>(k ? 0 : net.extra)) * work.planes[k]);
    work.stack_grads[k].resize(channels * work.planes[k]);
    if (k < static_cast<size_t>(net.first)) continue;
    grid.start = work.latents;
    grid.padded = work.padded;
    work.latents += grid.count();
    work.padded += (grid.height + kPadTop + kPadBottom) * grid.stride;
  }
  work.values.resize(work.padded);
  if (net.temporal) work.reference.resize(work.padded);
  for (Floats* planes : {&work.a, &work.b, &work.x_grad, &work.b_grad})
    planes->resize(static_cast<size_t>(net.colours) * work.plane + 2 * kWidest);
  work.shares.resize(static_cast<size_t>(threads));
  for (Share& share : work.shares) resize_share(share, work);
  return made;
}

size_t latent_count(const Work& work) { return work.latents; }
const Net& net_of(const Work& work) { return work.net; }
size_t samples(const Work& work) { return work.plane_start(work.net.colours); }

Result step(Work& work, Isa isa, const Objective& objective, const Frame& frame,
            const float* latents, const float* params, float* latent_grads, float* param_grads) {
  work.objective = objective;
  work.frame = frame;
  work.params = params;
  const Loops& loops = loops_for(isa);
  make_panels(work);
  take_latents(work, latents, work.values);
  if (frame.reference)
    take_latents(work, frame.reference, work.reference);
  else
    std::fill(work.reference.begin(), work.reference.end(), 0.0f);
  Barrier barrier(work.threads);
  std::vector<std::thread> others;
  for (int thread = 1; thread < work.threads; ++thread)
    others.emplace_back([&, thread] { run(work, loops, thread, barrier); });
  run(work, loops, 0, barrier);
  for (std::thread& other : others) other.join();

  give_latent_grads(work, latent_grads);
  give_param_grads(work, loops.lanes, param_grads);
  Result result{0, 0};
  for (const Share& share : work.shares) {
    result.bits += share.nats / std::log(2.0);
    result.mse += share.squares;
  }
  return result;
}

void soften(Isa isa, const float* latents, size_t count, float temperature, float noise,
            uint32_t seed, float* values, float* slope) {
  loops_for(isa).soften(latents, count, temperature, noise, seed, values, slope);
}

void adam(Isa isa, const Adam& adam, size_t count, const float* grads, const float* slope,
          float* latents, float* first, float* second) {
  loops_for(isa).adam(adam, count, grads, slope, latents, first, second);
}

}  // namespace latentpack::fit_train
