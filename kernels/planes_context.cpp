// Contexts of the plane coder; planes_context_ref.py is the definition.
#include <algorithm>
#include <cstring>

#include "planes.h"

namespace latentpack::planes {
namespace {

constexpr size_t kLearnt = 1024;
constexpr int kMaxListed = 15;
constexpr int kContextPrecision = 14;

bool constant(const uint8_t* data, size_t bytes, size_t width) {
  return bytes <= width || std::memcmp(data, data + width, bytes - width) == 0;
}

// Up to 15 bytes by falling count, the lower first of equals.
std::vector<uint8_t> most_frequent(const Histogram counts) {
  std::vector<uint8_t> values;
  for (int v = 0; v < 256; ++v)
    if (counts[v]) values.push_back(static_cast<uint8_t>(v));
  std::stable_sort(values.begin(), values.end(),
                   [&](uint8_t a, uint8_t b) { return counts[a] > counts[b]; });
  if (values.size() > kMaxListed) values.resize(kMaxListed);
  return values;
}

// Counts of a plane's symbols by class, for one source.
struct Learner {
  ContextSet set;
  uint32_t counts[kMaxListed + 1][256] = {};

  void add(const uint8_t* plane, const uint8_t* above, size_t m) {
    for (size_t i = 0; i < m; ++i) ++counts[set.class_at(plane, above, i)][plane[i]];
  }
  int64_t cost() const {
    int64_t sum = 0;
    for (size_t c = 0; c <= set.listed.size(); ++c) {
      const int64_t present = 256 - std::count(counts[c], counts[c] + 256, 0u);
      sum += entropy(counts[c]) + table_cost(present);
    }
    return sum;
  }
  ContextSet finish() {
    for (size_t c = 0; c <= set.listed.size(); ++c) {
      if (std::count(counts[c], counts[c] + 256, 0u) == 256) continue;
      Table& table = set.tables[c];
      table.precision = kContextPrecision;
      normalise(counts[c], 256, kContextPrecision, table.freq);
      table.prepare_context();
      set.there[c] = true;
    }
    return std::move(set);
  }
};

// The chunks that are learnt from, split into planes one after another.
class Lessons {
 public:
  Lessons(const uint8_t* data, size_t n, int width, int layout, size_t chunk, const EncodeLoops& loops)
      : data_(data), n_(n), width_(width), layout_(layout), chunk_(chunk), loops_(loops) {
    for (int p = 0; p < plane_count(layout, width); ++p) {
      buffers_[p] = make_buffer(std::min(n, chunk));
      planes[p] = buffers_[p].get();
    }
    const size_t count = (n + chunk - 1) / chunk;
    stride_ = std::max<size_t>(1, (count + kLearnt - 1) / kLearnt);
  }
  // Calls `use(m)` for every chunk that is not constant, with its planes.
  template <typename Use>
  void each(const Use& use) {
    for (size_t first = 0; first < n_; first += stride_ * chunk_) {
      const size_t n = std::min(chunk_, n_ - first);
      const uint8_t* elements = data_ + first * width_;
      if (constant(elements, n * width_, width_)) continue;
      loops_.split(elements, n, width_, layout_, planes);
      use(plane_bytes(layout_, n));
    }
  }
  uint8_t* planes[kMaxWidth];

 private:
  const uint8_t* data_;
  const size_t n_;
  const int width_, layout_;
  const size_t chunk_;
  const EncodeLoops& loops_;
  size_t stride_;
  Buffer buffers_[kMaxWidth];
};

}  // namespace

void ContextSet::list(const std::vector<uint8_t>& values) {
  listed = values;
  std::fill(class_of, class_of + 256, static_cast<uint8_t>(values.size()));
  for (size_t c = 0; c < values.size(); ++c) class_of[values[c]] = static_cast<uint8_t>(c);
  tables.resize(values.size() + 1);
}

int64_t ContextSet::cost(const uint8_t* plane, const uint8_t* above, size_t m) const {
  int64_t sum = 0;
  for (size_t i = 0; i < m; ++i) {
    const int c = class_at(plane, above, i);
    if (!there[c] || !tables[c].freq[plane[i]]) return INT64_MAX;
    sum += tables[c].cost[plane[i]];
  }
  return sum;
}

void ContextSet::pack(std::string& head) const {
  head.push_back(static_cast<char>(source));
  head.push_back(static_cast<char>(listed.size()));
  head.append(reinterpret_cast<const char*>(listed.data()), listed.size());
  for (size_t c = 0; c < tables.size(); ++c) {
    if (there[c]) pack_table(tables[c], head);
    else head.append("\1\0", 2);
  }
}

const char* ContextSet::unpack(const uint8_t*& at, const uint8_t* end) {
  if (end - at < 2) return "a set of contexts is cut short";
  const size_t count = at[1];
  source = at[0];
  at += 2;
  if (source > kAbove || count > (source ? kMaxListed : 0) ||
      static_cast<size_t>(end - at) < count)
    return "a set of contexts has an impossible source or list";
  list(std::vector<uint8_t>(at, at + count));
  at += count;
  for (size_t c = 0; c < count; ++c)
    if (class_of[listed[c]] != c) return "a set of contexts lists a byte twice";
  int precision = 0;
  for (size_t c = 0; c <= count; ++c) {
    if (end - at >= 2 && at[0] == 1 && at[1] == 0) {
      at += 2;
      continue;
    }
    if (const char* error = unpack_table(at, end, tables[c])) return error;
    if (precision && tables[c].precision != precision)
      return "the tables of a set of contexts differ in precision";
    precision = tables[c].precision;
    tables[c].prepare_searched();
    there[c] = true;
  }
  return nullptr;
}

uint8_t* ContextSet::encode(const uint8_t* plane, const uint8_t* above, size_t m,
                            uint32_t* states, uint8_t* end) const {
  const size_t lanes = choose_lanes(m);
  uint8_t* out = end;
  for (size_t i = m; i-- > 0;) {
    const Table& table = tables[class_at(plane, above, i)];
    out = put_symbol(states[i % lanes], table, plane[i], out);
  }
  return out;
}

const char* ContextSet::decode(Stream& stream, const uint8_t* above, size_t m,
                               uint8_t* plane) const {
  for (size_t i = 0; i < m; ++i) {
    const int c = class_at(plane, above, i);
    if (!there[c]) return "a symbol has a class without a table";
    uint32_t& x = stream.states[i % stream.lanes];
    plane[i] = get_symbol(tables[c], x);
    if (x < kLower) {
      if (stream.at >= stream.end) return "a coded stream ends before its last symbol";
      x = x << 16 | load_word(stream.at);
      stream.at += 2;
    }
  }
  return nullptr;
}

std::vector<std::unique_ptr<ContextSet>> learn_contexts(const uint8_t* data, size_t n, int width,
                                                        int layout, int speed, size_t chunk,
                                                        const EncodeLoops& loops) {
  const int count = plane_count(layout, width);
  std::vector<std::unique_ptr<ContextSet>> sets(count);
  if (speed < kContexts || speed == kSegments) return sets;
  Lessons lessons(data, n, width, layout, chunk, loops);
  Histogram totals[kMaxWidth] = {};
  lessons.each([&](size_t m) {
    for (int p = 0; p < count; ++p)
      for (size_t i = 0; i < m; ++i) ++totals[p][lessons.planes[p][i]];
  });
  std::vector<Learner> learners(3 * count);
  std::vector<uint64_t> symbols(count);
  for (int p = 0; p < count; ++p) {
    for (int source : {kNothing, kBefore, kAbove}) learners[3 * p + source].set.source = source;
    learners[3 * p].set.list({});
    learners[3 * p + 1].set.list(most_frequent(totals[p]));
    learners[3 * p + 2].set.list(most_frequent(totals[p ? p - 1 : 0]));
  }
  lessons.each([&](size_t m) {
    for (int p = 0; p < count; ++p) {
      if (constant(lessons.planes[p], m, 1)) continue;
      symbols[p] += m;
      const uint8_t* above = p ? lessons.planes[p - 1] : nullptr;
      for (int source = 0; source < (p ? 3 : 2); ++source)
        learners[3 * p + source].add(lessons.planes[p], above, m);
    }
  });
  for (int p = speed == kContextsBut0 ? 1 : 0; p < count; ++p) {
    int best = 0;
    for (int source = 1; source < (p ? 3 : 2); ++source)
      if (learners[3 * p + source].cost() < learners[3 * p + best].cost()) best = source;
    if (learners[3 * p + best].cost() < 8 * static_cast<int64_t>(symbols[p]) * kCostUnit)
      sets[p] = std::make_unique<ContextSet>(learners[3 * p + best].finish());
  }
  return sets;
}

}  // namespace latentpack::planes
