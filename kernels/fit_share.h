// Parts of a task for several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <new>

#include "fit.h"
#include "threads.h"

namespace latentpack::fit {

// Calls work(first, last) for parts of 0 .. count, on several threads.
template <typename Work>
void share(size_t count, int threads, size_t least, const Work& work) {
  const size_t wanted = std::max<size_t>(1, static_cast<size_t>(std::max(1, threads)));
  const size_t parts = std::max<size_t>(1, std::min(wanted, count / std::max<size_t>(1, least)));
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  const auto run = [&] {
    try {
      for (size_t p; (p = next++) < parts;) work(count * p / parts, count * (p + 1) / parts);
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  };
  std::vector<std::thread> others;
  start_others(others, parts, [&](size_t) { return std::thread(run); });
  run();
  for (std::thread& other : others) other.join();
  if (failed) throw std::bad_alloc();
}

}  // namespace latentpack::fit
