// Decoding of single symbols with every case: escapes, wide tables, the end of the words.
#pragma once

#include <algorithm>

#include "rans.h"

namespace latentpack {

// The entry of a row in which a slot lies, for tables without dense slots.
inline uint32_t find_entry(const Prepared& tables, int row, uint32_t slot) {
  const uint32_t* bucket = tables.buckets.data() + size_t{257} * row;
  const uint32_t* cum = tables.cum.data() + tables.start[row];
  uint32_t which = slot >> tables.bucket_shift;
  uint32_t low = bucket[which], high = bucket[which + 1] + 1;
  while (high - low > 1) {
    uint32_t middle = (low + high) / 2;
    (cum[middle] <= slot ? low : high) = middle;
  }
  return low;
}

// One symbol at a time with every check; what the step kernels leave over.
class CarefulDecoder {
 public:
  CarefulDecoder(const Prepared& tables, uint32_t* states, Reader& reader)
      : tables_(tables), states_(states), reader_(reader) {}

  Status run(int lane, int lanes, const uint8_t* index, size_t n, int16_t* symbols) {
    for (size_t i = 0; i < n && status_ == Status::kOk; ++i) {
      symbols[i] = symbol(states_[(lane + i) & (lanes - 1)], index[i]);
    }
    return status_;
  }

 private:
  int16_t symbol(uint32_t& x, int row) {
    const int precision = tables_.precision;
    const uint32_t slot = x & ((1u << precision) - 1);
    const uint32_t entry = tables_.narrow ? look_up(row, slot) : find_entry(tables_, row, slot);
    const uint32_t at = tables_.start[row] + entry;
    x = renormalised(tables_.freq[at] * (x >> precision) + slot - tables_.cum[at]);
    int32_t value = tables_.offset[row] + static_cast<int32_t>(entry);
    if (entry + 1 == static_cast<uint32_t>(tables_.length[row])) value = escaped(x, row);
    return static_cast<int16_t>(value);
  }

  uint32_t look_up(int row, uint32_t slot) const {
    const int value = tables_.values[static_cast<uint32_t>(row) << tables_.precision | slot];
    return static_cast<uint32_t>(value == 255 ? tables_.length[row] - 1
                                              : value + tables_.base - tables_.offset[row]);
  }

  int32_t escaped(uint32_t& x, int row) {
    const uint32_t nb = raw(x, 5);
    if (nb > kMaxEscapeBits) return fail(Status::kEscapeBits);
    uint32_t e = nb ? 1u << (nb - 1) : 0;
    for (uint32_t shift = 0; shift + 1 < nb; shift += 16) {
      e += raw(x, std::min(16u, nb - 1 - shift)) << shift;
    }
    const int32_t low = tables_.offset[row];
    const int32_t high = low + tables_.length[row] - 2;
    const int32_t half = static_cast<int32_t>(e / 2);
    const int32_t value = e & 1 ? low - 1 - half : high + 1 + half;
    return value < -32768 || value > 32767 ? fail(Status::kEscapeValue) : value;
  }

  uint32_t raw(uint32_t& x, uint32_t bits) {
    uint32_t value = x & ((1u << bits) - 1);
    x = renormalised(x >> bits);
    return value;
  }

  uint32_t renormalised(uint32_t x) {
    if (x >= kLower) return x;
    if (reader_.at >= reader_.end) {
      fail(Status::kTooShort);
      return kLower;
    }
    reader_.at += 2;
    return x << 16 | load_word(reader_.at - 2);
  }

  int32_t fail(Status status) {
    if (status_ == Status::kOk) status_ = status;
    return 0;
  }

  const Prepared& tables_;
  uint32_t* states_;
  Reader& reader_;
  Status status_ = Status::kOk;
};

// One more than the largest row.
inline int rows_named(const uint8_t* index, size_t n) {
  uint8_t top = 0;
  for (size_t i = 0; i < n; ++i) top = std::max(top, index[i]);
  return n ? top + 1 : 0;
}

}  // namespace latentpack
