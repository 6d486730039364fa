// Tables of the plane coder; planes_tables_ref.py is the definition.
#include <algorithm>
#include <cstring>

#include "planes.h"

namespace latentpack::planes {

namespace {

constexpr int64_t kTableBits = 128, kSymbolBits = 10;
constexpr int kMaxOrder = 11;

int bit_length(uint64_t v) { return v ? 64 - __builtin_clzll(v) : 0; }

int64_t log2_any(const int64_t* log, uint64_t value) {
  const int shift = std::max(0, bit_length(value) - 12);
  return log[value >> shift] + (int64_t{shift} << kLogBits);
}

// Bits most significant first.
class BitWriter {
 public:
  explicit BitWriter(std::string& out) : out_(out) {}
  void put(uint32_t value, int bits) {
    for (int b = bits - 1; b >= 0; --b) {
      if (used_ == 0) out_.push_back(0);
      out_.back() = static_cast<char>(out_.back() | (value >> b & 1) << (7 - used_));
      used_ = (used_ + 1) & 7;
    }
  }

 private:
  std::string& out_;
  int used_ = 0;
};

class BitReader {
 public:
  BitReader(const uint8_t* at, const uint8_t* end) : at_(at), end_(end) {}
  // The next bit; -1 behind the end.
  int bit() {
    if (at_ == end_) return -1;
    const int b = *at_ >> (7 - used_) & 1;
    used_ = (used_ + 1) & 7;
    at_ += used_ == 0;
    return b;
  }
  bool rest_is_zero() const { return used_ == 0 || (*at_ & (0xFF >> used_)) == 0; }
  const uint8_t* end_of_byte() const { return at_ + (used_ != 0); }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
  int used_ = 0;
};

// The frequency in the exponential Golomb code of this order; -1 if cut, -2 if too large.
int read_frequency(BitReader& in, int order) {
  int zeros = 0, b = in.bit();
  for (; b == 0; b = in.bit()) ++zeros;
  if (b < 0) return -1;
  if (zeros > 15) return -2;
  uint32_t value = 1;
  for (int i = 0; i < zeros + order; ++i) {
    if (i == zeros) value -= 1;
    b = in.bit();
    if (b < 0) return -1;
    value = value << 1 | static_cast<uint32_t>(b);
  }
  if (order == 0) value -= 1;
  return static_cast<int>(value);
}

}  // namespace

namespace {

constexpr size_t kKeptBytes = size_t{8} << 20;

struct Shelf {
  std::vector<Buffer> buffers;
  size_t bytes = 0;
  bool closed = false;  // the thread ends: what comes back now is freed
  ~Shelf() {
    closed = true;
    for (Buffer& buffer : buffers) delete[] buffer.release();
  }
};
thread_local Shelf shelf;

}  // namespace

void Recycle::operator()(uint8_t* buffer) const {
  if (shelf.closed || shelf.bytes + bytes > kKeptBytes) {
    delete[] buffer;
    return;
  }
  shelf.bytes += bytes;
  shelf.buffers.emplace_back(buffer, *this);
}

Buffer make_buffer(size_t bytes) {
  for (Buffer& kept : shelf.buffers) {
    const size_t size = kept.get_deleter().bytes;
    if (size < bytes + 64 || size > 2 * bytes + 4096) continue;
    shelf.bytes -= size;
    Buffer found = std::move(kept);
    kept = std::move(shelf.buffers.back());
    shelf.buffers.pop_back();
    return found;
  }
  return Buffer(new uint8_t[bytes + 64], Recycle{bytes + 64});
}

void Table::set_cums() {
  uint32_t sum = 0;
  for (int s = 0; s < 256; ++s) {
    cum[s] = static_cast<uint16_t>(sum);
    sum += freq[s];
  }
}

namespace {

struct Cheapest {
  int cost = 1 << 28, symbol = 0;
  bool operator<(const Cheapest& other) const {
    return cost != other.cost ? cost < other.cost : symbol < other.symbol;
  }
};

}  // namespace

void Table::prepare_encoder(bool pairs) {
  set_cums();
  const int64_t* log = log2_table(kPrecision);
  std::fill(rare, rare + 32, uint8_t{0});
  for (int s = 0; s < 256; ++s) {
    reciprocal[s] = freq[s] ? latentpack::reciprocal(freq[s]) : 0;
    instead[s] = static_cast<uint8_t>(s);
    for (int b = 0; b < 3; ++b)
      entry[b][s] = static_cast<uint8_t>((freq[s] | uint32_t{cum[s]} << kPrecision) >> (8 * b));
    cost[s] = static_cast<int16_t>(((int64_t{kPrecision} << kLogBits) - log[freq[s]]) >>
                                   (kLogBits - kCostBits));
  }
  // The cheapest symbol, the lowest of equals: of all, and of those that share a nibble.
  Cheapest all, low[16], high[16];
  for (int s = 0; s < 256; ++s) {
    if (!freq[s]) continue;
    for (Cheapest* best : {&all, &low[s & 15], &high[s >> 4]})
      *best = std::min(*best, Cheapest{cost[s], s});
  }
  constexpr int patch = kPatchBits * kCostUnit;
  for (int s = 0; s < 256; ++s) {
    if (freq[s]) continue;
    rare[(s & 15) | (s >> 3 & 16)] |= static_cast<uint8_t>(1 << (s >> 4 & 7));
    // A pair needs a patch for each nibble that is another, a byte one.
    Cheapest best{all.cost + (pairs ? 2 : 1) * patch, all.symbol};
    if (pairs)
      for (const Cheapest& half : {low[s & 15], high[s >> 4]})
        best = std::min(best, Cheapest{half.cost + patch, half.symbol});
    instead[s] = static_cast<uint8_t>(best.symbol);
    cost[s] = static_cast<int16_t>(best.cost);
  }
}

void Table::prepare_context() {
  set_cums();
  const int64_t* log = log2_table(precision);
  for (int s = 0; s < 256; ++s) {
    reciprocal[s] = freq[s] ? latentpack::reciprocal(freq[s]) : 0;
    cost[s] = static_cast<int16_t>(((int64_t{precision} << kLogBits) - log[freq[s]]) >>
                                   (kLogBits - kCostBits));
  }
}

void Table::prepare_decoder() {
  if (precision != kPrecision) return prepare_searched();
  set_cums();
  slots.resize(size_t{1} << precision);
  for (uint32_t s = 0; s < 256; ++s)
    for (uint32_t k = 0; k < freq[s]; ++k) slots[cum[s] + k] = freq[s] | k << 12 | s << 24;
}

void Table::prepare_searched() {
  set_cums();
  symbol_of.resize(size_t{1} << precision);
  for (int s = 0; s < 256; ++s)
    std::fill_n(symbol_of.begin() + cum[s], freq[s], static_cast<uint8_t>(s));
}

void SymbolCounter::add(const uint8_t* symbols, size_t n) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t eight;
    std::memcpy(&eight, symbols + i, 8);
    for (int j = 0; j < 8; ++j) ++part_[j & 3][eight >> (8 * j) & 255];
  }
  for (; i < n; ++i) ++part_[0][symbols[i]];
}

void SymbolCounter::sum(Histogram counts) const {
  for (int s = 0; s < 256; ++s) counts[s] = part_[0][s] + part_[1][s] + part_[2][s] + part_[3][s];
}

uint8_t best_top(Histogram counts) {
  counts[0] = 0;
  uint32_t inside = 0, most = 0;
  int top = 0;
  for (int e = 0; e < 256; ++e) {
    inside += counts[e] - (e >= 15 ? counts[e - 15] : 0);
    if (inside > most) {
      most = inside;
      top = e;
    }
  }
  return static_cast<uint8_t>(top);
}

int count_sample(const uint8_t* symbols, size_t n, size_t limit, Histogram counts) {
  SymbolCounter counter;
  const int weight = sample_blocks(n, limit, [&](size_t first, size_t count) {
    counter.add(symbols + first, count);
  });
  counter.sum(counts);
  return weight;
}

int64_t entropy(const Histogram counts) {
  const int64_t* log = log2_table(kPrecision);
  uint64_t total = 0, most = 0;
  for (int s = 0; s < 256; ++s) {
    total += counts[s];
    most |= counts[s];
  }
  if (!total) return 0;
  int64_t own = 0;
  if (most >> kPrecision) {
    for (int s = 0; s < 256; ++s)
      if (counts[s]) own += counts[s] * log2_any(log, counts[s]);
  } else {
    for (int s = 0; s < 256; ++s) own += counts[s] * log[counts[s]];
  }
  return (static_cast<int64_t>(total) * log2_any(log, total) - own) >> (kLogBits - kCostBits);
}

int64_t table_cost(int64_t present) {
  return (kTableBits + kSymbolBits * present) * kCostUnit;
}

int TableSet::estimate(const Sample& sample, int kind, int64_t* cost) const {
  int16_t counts[256];
  std::copy(sample.counts, sample.counts + 256, counts);
  int best = -1;
  int64_t least = 0;
  for (size_t t = 0; t < tables_.size(); ++t) {
    if (kinds_[t] != kind) continue;
    int32_t sum = 0;  // 4096 symbols of less than 2^15 units
    for (int s = 0; s < 256; ++s) sum += counts[s] * tables_[t].cost[s];
    if (best < 0 || sum < least) {
      best = static_cast<int>(t);
      least = sum;
    }
  }
  least *= sample.weight;
  const int64_t present = 256 - std::count(counts, counts + 256, int16_t{0});
  const int64_t flattery = sample.weight > 1 ? sample.weight * present * kCostUnit : 0;
  const int64_t fresh = entropy(sample.counts) * sample.weight + table_cost(present) + flattery;
  if (best >= 0 && (full() || least <= fresh)) {
    *cost = least;
    return best;
  }
  *cost = fresh;
  return -1;
}

int TableSet::add(const Histogram counts, int kind) {
  const int t = static_cast<int>(tables_.size());
  tables_.emplace_back();
  normalise(counts, 256, kPrecision, tables_[t].freq);
  tables_[t].prepare_encoder(kind % 2 == 1);
  kinds_[t] = kind;
  return t;
}

void TableSet::pack(std::string& head) const {
  head.push_back(static_cast<char>(tables_.size()));
  for (const Table& table : tables_) pack_table(table, head);

}

void pack_table(const Table& table, std::string& out) {
  int first = 0, last = 255;
  while (!table.freq[first]) ++first;
  while (!table.freq[last]) --last;
  int order = 0, least = 1 << 30;
  for (int g = 0; g <= kMaxOrder; ++g) {
    int bits = 0;
    for (int s = first; s <= last; ++s) bits += 2 * bit_length((table.freq[s] >> g) + 1u) - 1 + g;
    if (bits < least) {
      least = bits;
      order = g;
    }
  }
  out.push_back(static_cast<char>(first));
  out.push_back(static_cast<char>(last));
  out.push_back(static_cast<char>((table.precision - 1) << 4 | order));
  BitWriter bits(out);
  for (int s = first; s <= last; ++s) {
    const uint32_t q = (table.freq[s] >> order) + 1u;
    bits.put(q, 2 * bit_length(q) - 1);
    bits.put(table.freq[s] & ((1u << order) - 1), order);
  }
}

const char* unpack_table(const uint8_t*& at, const uint8_t* end, Table& table) {
  if (end - at < 3) return "a table is cut short";
  const int first = at[0], last = at[1], order = at[2] & 15;
  table.precision = (at[2] >> 4) + 1;
  if (first > last || table.precision > kMaxPrecision || order > kMaxOrder)
    return "a table has an impossible range or shape";
  std::fill(table.freq, table.freq + 256, uint16_t{0});
  BitReader bits(at + 3, end);
  const uint32_t whole = 1u << table.precision;
  uint32_t sum = 0;
  for (int s = first; s <= last; ++s) {
    const int freq = read_frequency(bits, order);
    if (freq == -1) return "a table is cut short";
    if (freq < 0 || static_cast<uint32_t>(freq) >= whole) return "a frequency of a table is too large";
    table.freq[s] = static_cast<uint16_t>(freq);
    sum += static_cast<uint32_t>(freq);
  }
  if (!bits.rest_is_zero()) return "the spare bits after a table are not zero";
  if (sum != whole) return "a table's frequencies do not add to a power of two";
  at = bits.end_of_byte();
  return nullptr;
}

}  // namespace latentpack::planes
