// The way SEGMENTS of the plane encoder; planes_segments_ref.py is the definition.
#include <algorithm>
#include <atomic>
#include <thread>

#include "planes.h"

namespace latentpack::planes {
namespace {

constexpr int kSegmentLog2 = 18;
// Of so many exponents, so many are sampled for the window.
constexpr size_t kPeriod = 4096, kTaken = 64;

// Counts plane 0 of one segment; the buffers are made once.
class SegmentCounter {
 public:
  SegmentCounter(const uint8_t* data, size_t n, int width, int layout, size_t chunk,
                 const EncodeLoops& loops)
      : data_(data), n_(n), width_(width), layout_(layout), chunk_(chunk), loops_(loops) {
    for (int p = 0; p < plane_count(layout, width); ++p) {
      buffers_[p] = make_buffer(std::min(n, chunk));
      planes_[p] = buffers_[p].get();
    }
  }

  uint8_t top(size_t begin, size_t end) const {
    Histogram counts = {};
    for (size_t i = begin; i < std::min(end, begin + kTaken); ++i) ++counts[exponent(i)];
    // The samples that begin in the segment; the segment's own start is counted already.
    for (size_t first = begin / kPeriod * kPeriod; first < end; first += kPeriod)
      for (size_t i = std::max(first, begin + kTaken); i < std::min(end, first + kTaken); ++i)
        ++counts[exponent(i)];
    return best_top(counts);
  }

  void count(size_t begin, size_t end, uint8_t top, Histogram counts) {
    SymbolCounter counter;
    for (size_t first = begin; first < end; first += chunk_) {
      const size_t n = std::min(chunk_, end - first), m = plane_bytes(layout_, n);
      const uint8_t* elements = data_ + first * width_;
      if (layout_ == kFloat) {
        loops_.split_window(elements, n, width_, top, planes_[0], planes_, nullptr, 0);
        counter.add(planes_[0], (m + 1) / 2);
      } else {
        loops_.split(elements, n, width_, layout_, planes_);
        counter.add(planes_[0], m);
      }
    }
    counter.sum(counts);
  }

 private:
  uint8_t exponent(size_t i) const { return element_exponent(data_ + i * width_, width_); }

  const uint8_t* data_;
  const size_t n_;
  const int width_, layout_;
  const size_t chunk_;
  const EncodeLoops& loops_;
  Buffer buffers_[kMaxWidth];
  uint8_t* planes_[kMaxWidth];
};

}  // namespace

Segments::Segments(size_t n, size_t chunks) : chunks_(chunks) {
  const size_t wanted = (n + (size_t{1} << kSegmentLog2) - 1) >> kSegmentLog2;
  count = std::min({size_t{kMaxTables}, std::max<size_t>(1, wanted), chunks});
}

void Segments::learn(const uint8_t* data, size_t n, int width, int layout, size_t chunk,
                     const EncodeLoops& loops, int threads, TableSet& tables) {
  const auto counts = std::make_unique<Histogram[]>(count);
  std::atomic<size_t> next{0};
  const auto work = [&](SegmentCounter& counter) {
    for (size_t t; (t = next.fetch_add(1)) < count;) {
      const size_t begin = std::min(n, first_chunk(t) * chunk);
      const size_t end = std::min(n, first_chunk(t + 1) * chunk);
      if (layout == kFloat) tops[t] = counter.top(begin, end);
      counter.count(begin, end, tops[t], counts[t]);
    }
  };
  std::vector<SegmentCounter> counters;
  const size_t workers = std::max<size_t>(1, std::min<size_t>(threads, count));
  counters.reserve(workers);
  for (size_t w = 0; w < workers; ++w)
    counters.emplace_back(data, n, width, layout, chunk, loops);
  std::vector<std::thread> others;
  start_others(others, workers,
               [&](size_t w) { return std::thread(work, std::ref(counters[w])); });
  work(counters[0]);
  for (std::thread& other : others) other.join();
  for (size_t t = 0; t < count; ++t) tables.add(counts[t], layout == kFloat);
}

}  // namespace latentpack::planes
