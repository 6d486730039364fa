// Integer tables: normalisation of counts, and what the coders look up.
#include "rans.h"

#include <algorithm>

namespace latentpack {

const int64_t* log2_table(int precision) {
  static std::once_flag made[17];
  static std::vector<int64_t> tables[17];
  std::call_once(made[precision], [precision] {
    std::vector<int64_t> log((size_t{1} << precision) + 2);
    for (uint64_t f = 1; f < log.size(); ++f) {
      uint64_t exponent = 63 - static_cast<uint64_t>(__builtin_clzll(f));
      uint64_t y = f << (31 - exponent);
      uint64_t bits = exponent;
      for (int i = 0; i < 28; ++i) {
        y = y * y >> 31;
        uint64_t bit = y >> 32;
        y >>= bit;
        bits = bits << 1 | bit;
      }
      log[f] = static_cast<int64_t>(bits);
    }
    tables[precision] = std::move(log);
  });
  return tables[precision].data();
}

namespace {

struct Move {
  size_t symbol;
  int64_t bits;
};

Move best_gain(const std::vector<int64_t>& counts, const std::vector<uint32_t>& freq,
               const int64_t* log) {
  Move best{0, -1};
  for (size_t s = 0; s < counts.size(); ++s) {
    if (counts[s] == 0) continue;
    int64_t gain = counts[s] * (log[freq[s] + 1] - log[freq[s]]);
    if (gain > best.bits) best = {s, gain};
  }
  return best;
}

Move least_loss(const std::vector<int64_t>& counts, const std::vector<uint32_t>& freq,
                const int64_t* log) {
  Move least{0, INT64_MAX};
  for (size_t s = 0; s < counts.size(); ++s) {
    if (freq[s] < 2) continue;
    int64_t loss = counts[s] * (log[freq[s]] - log[freq[s] - 1]);
    if (loss < least.bits) least = {s, loss};
  }
  return least;
}

}  // namespace

bool normalise(const uint32_t* given, size_t count, int precision, uint16_t* out) {
  std::vector<int64_t> counts(given, given + count);
  const int64_t total = int64_t{1} << precision;
  int64_t present = static_cast<int64_t>(count) - std::count(counts.begin(), counts.end(), 0);
  if (count < 2 || present == 0 || present > total) return false;
  if (present == 1) *std::find(counts.begin(), counts.end(), 0) = 1;
  int64_t weight = 0;
  for (int64_t c : counts) weight += c;
  std::vector<uint32_t> freq(count);
  int64_t sum = 0;
  for (size_t s = 0; s < count; ++s) {
    if (counts[s] == 0) continue;
    // 2 * count * 2^P stays below 2^49; weight below 2^63 for any count that fits in memory.
    int64_t f = (2 * counts[s] * total + weight) / (2 * weight);
    freq[s] = static_cast<uint32_t>(std::max<int64_t>(1, f));
    sum += freq[s];
  }
  const int64_t* log = log2_table(precision);
  for (; sum < total; ++sum) ++freq[best_gain(counts, freq, log).symbol];
  for (; sum > total; --sum) --freq[least_loss(counts, freq, log).symbol];
  for (;;) {
    Move gain = best_gain(counts, freq, log);
    Move loss = least_loss(counts, freq, log);
    if (gain.symbol == loss.symbol || gain.bits <= loss.bits) break;
    ++freq[gain.symbol];
    --freq[loss.symbol];
  }
  std::copy(freq.begin(), freq.end(), out);
  return true;
}

void Prepared::build(int precision_, const int32_t* offsets, const int32_t* lengths, int rows_,
                     const uint16_t* freqs, size_t freq_count) {
  precision = precision_;
  rows = rows_;
  offset.assign(offsets, offsets + rows);
  length.assign(lengths, lengths + rows);
  freq.assign(freqs, freqs + freq_count);
  cum.resize(freq_count);
  uint32_t at = 0;
  int32_t low = INT32_MAX, high = INT32_MIN;
  for (int row = 0; row < rows; ++row) {
    start.push_back(at);
    coded[row] = length[row] > 0;
    if (!coded[row]) uncoded.push_back(static_cast<uint8_t>(row));
    uint32_t below = 0;
    for (int32_t k = 0; k < length[row]; ++k, ++at) {
      cum[at] = below;
      below += freq[at];
    }
    if (!coded[row]) continue;
    low = std::min(low, offset[row]);
    high = std::max(high, offset[row] + length[row] - 2);
  }
  base = low == INT32_MAX ? 0 : low;
  narrow = precision <= 12 && (low == INT32_MAX || high - low <= 254);
  narrow ? build_narrow() : build_buckets();
}

void Prepared::build_narrow() {
  entries.assign(size_t{256} * rows, 0);
  reciprocals.assign(size_t{256} * rows, 0);
  values.resize((static_cast<size_t>(rows) << precision) + 3);  // a gather reads four bytes
  for (int row = 0; row < rows; ++row) {
    for (int32_t k = 0; k + 1 < length[row]; ++k) {
      size_t to = size_t{256} * row + (offset[row] + k - base);
      uint32_t f = freq[start[row] + k];
      entries[to] = f | cum[start[row] + k] << 16;
      reciprocals[to] = reciprocal(f);
    }
  }
}

void Prepared::build_buckets() {
  bucket_shift = std::max(0, precision - 8);
  buckets.assign(size_t{257} * rows, 0);
  for (int row = 0; row < rows; ++row) {
    if (!coded[row]) continue;
    uint32_t entry = 0;
    uint32_t last = static_cast<uint32_t>(length[row]) - 1;
    for (uint32_t bucket = 0; bucket <= 256; ++bucket) {
      while (entry < last && cum[start[row] + entry + 1] <= bucket << bucket_shift) ++entry;
      buckets[size_t{257} * row + bucket] = entry;
    }
  }
}

void Prepared::fill_values(int row) {
  uint8_t* to = values.data() + (static_cast<size_t>(row) << precision);
  for (int32_t k = 0; k < length[row]; ++k) {
    const uint32_t f = freq[start[row] + k];
    std::memset(to, k + 1 == length[row] ? 255 : offset[row] + k - base, f);
    to += f;
  }
}

void Prepared::fill_slots(int row) {
  const size_t first = static_cast<size_t>(row) << precision;
  for (int32_t k = 0; k < length[row]; ++k) {
    const uint32_t f = freq[start[row] + k], low = cum[start[row] + k];
    for (uint32_t bias = 0; bias < f; ++bias) {
      const uint32_t value = values[first + low + bias];
      slots[first + low + bias] = f | bias << 12 | value << 24;
    }
  }
}

void Prepared::fill(int end, bool want_slots) {
  if (rows_with_values.load(std::memory_order_acquire) >= end &&
      (!want_slots || rows_with_slots.load(std::memory_order_acquire) >= end)) {
    return;
  }
  std::lock_guard<std::mutex> lock(filling);
  int row = rows_with_values.load(std::memory_order_relaxed);
  for (; row < end; ++row) fill_values(row);
  rows_with_values.store(row, std::memory_order_release);
  if (!want_slots) return;
  if (slots.empty()) slots.resize(static_cast<size_t>(rows) << precision);
  row = rows_with_slots.load(std::memory_order_relaxed);
  for (; row < end; ++row) fill_slots(row);
  rows_with_slots.store(row, std::memory_order_release);
}

}  // namespace latentpack
