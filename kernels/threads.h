// Threads beside the caller's.
#pragma once

#include <cstddef>
#include <system_error>
#include <thread>
#include <vector>

namespace latentpack {

// Starts threads 1 to count - 1; fewer where the system has no more: the caller does their share.
template <typename Start>
void start_others(std::vector<std::thread>& others, size_t count, const Start& start) {
  try {
    for (size_t w = 1; w < count; ++w) others.push_back(start(w));
  } catch (const std::system_error&) {
  }
}

}  // namespace latentpack
