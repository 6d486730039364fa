// Coding of one chunk, up to its streams; planes_ref.py is the definition.
#include "planes_chunk.h"

#include <algorithm>
#include <cstring>

namespace latentpack::planes {
namespace {

// From one patch in so many exponents on, single exponents are considered.
constexpr size_t kManyOutside = 128;
constexpr size_t kTopSample = 2048;
constexpr size_t kWordSlack = 64;  // below its words, `encode_steps` may overwrite so many bytes

bool all_equal(const uint8_t* data, size_t bytes, size_t width) {
  return bytes <= width || std::memcmp(data, data + width, bytes - width) == 0;
}

bool pays(int64_t cost, size_t m) { return cost * 100 < 99 * 8 * static_cast<int64_t>(m) * kCostUnit; }

bool promising(const uint8_t* plane, size_t m) {
  Histogram glance;
  count_sample(plane, m, 1024, glance);
  int64_t total = 0;
  for (const uint32_t count : glance) total += count;
  return entropy(glance) * 10 < 74 * total * kCostUnit;
}

// More patches than this cost more than the plane.
size_t most_patches(size_t m) { return m / 3 + 1; }

}  // namespace

inline uint8_t ChunkCoder::exponent(size_t i) const {
  return element_exponent(elements_ + i * coding_.width, coding_.width);
}

ChunkCoder::ChunkCoder(const Coding& coding, size_t chunk_elements)
    : coding_(coding), loops_(encode_loops_for(coding.isa)),
      planes_(plane_count(coding.layout, coding.width)),
      room_(padded(plane_bytes(coding.layout, chunk_elements))) {
  const size_t words = padded(2 * room_ + kWordSlack), patches = padded(most_patches(room_));
  // Pairs; the planes, and behind them the streams of all; of each plane words and patches.
  buffer_ = make_buffer(room_ + 2 * planes_ * room_ + planes_ * (words + 3 * patches) +
                        (coding.layout == kFloat) * 5 * patches);
  uint8_t* at = buffer_.get() + room_ + 2 * planes_ * room_;
  const auto take = [&at](size_t bytes) {
    at += bytes;
    return at - bytes;
  };
  for (int p = 0; p < planes_; ++p) {
    works_[p].words_end = take(words) + words;
    works_[p].patch_at = reinterpret_cast<uint16_t*>(take(2 * patches));
    works_[p].patches = take(patches);
  }
  if (coding.layout != kFloat) return;
  outside_at_ = reinterpret_cast<uint16_t*>(take(2 * patches));
  rare_at_ = reinterpret_cast<uint16_t*>(take(2 * patches));
  rare_ = take(patches);
}

void ChunkCoder::in_segment(size_t segment, uint8_t top, const Table& table) {
  segment_ = segment;
  segment_top_ = top;
  segment_table_ = &table;
}

void ChunkCoder::look(const uint8_t* elements, size_t n) {
  elements_ = elements;
  n_ = n;
  m_ = plane_bytes(coding_.layout, n);
  form_ = kFormPlanes;
  if (all_equal(elements, n * coding_.width, coding_.width)) {
    form_ = kFormConst;
    return;
  }
  if (coding_.speed == kStored) {
    form_ = kFormRaw;
    return;
  }
  for (int p = 0; p < planes_; ++p) {
    PlaneWork& work = works_[p];
    work.record = PlaneRecord{};
    work.plane = buffer_.get() + room_ + p * padded(m_);
    work.whole = false;
    work.limit = INT64_MAX;
    work.stream_bytes = 0;
    work.symbol_count = 0;
    work.patch_count = 0;
    work.stream.steps = 0;
  }
  if (coding_.layout != kFloat || coding_.sets[0] || coding_.sets[1]) split();
  if (coding_.layout == kFloat) look_at_exponents();
  for (int p = coding_.layout == kFloat; p < planes_; ++p) look_at_plane(p);
}

void ChunkCoder::split() {
  uint8_t* planes[kMaxWidth];
  for (int p = 0; p < planes_; ++p) planes[p] = works_[p].plane;
  loops_.split(elements_, n_, coding_.width, coding_.layout, planes);
  for (int p = 0; p < planes_; ++p) works_[p].whole = true;
}

// Plane 0 of FLOAT, and the split of the others.
void ChunkCoder::look_at_exponents() {
  PlaneWork& work = works_[0];
  work.record.top = coding_.speed == kSegments ? segment_top_ : sampled_top();
  const size_t pairs = (m_ + 1) / 2;
  // "fast" puts the pairs in front of plane 1, where they stay.
  uint8_t* to = coding_.speed == kFast ? works_[1].plane - padded(pairs) : buffer_.get();
  uint8_t* planes[kMaxWidth];
  for (int p = 1; p < planes_; ++p) {
    planes[p] = works_[p].plane;
    works_[p].whole = true;
  }
  outside_ = loops_.split_window(elements_, n_, coding_.width, work.record.top, to, planes,
                                 outside_at_, most_patches(m_));
  const uint8_t first = exponent(0);
  size_t i = 1;
  while (i < n_ && exponent(i) == first) ++i;
  if (i == n_) {
    work.record.mode = kConst;
    work.record.value = first;
    return;
  }
  work.symbols = to;
  work.symbol_count = pairs;
  if (coding_.speed == kFast) {
    find_pair_patches(0);
    if (pairs + 3 * work.patch_count < m_) work.record.mode = kWindow;
    return;
  }
  work.record.mode = kPair;
  if (coding_.speed == kSegments) {
    work.record.table = static_cast<uint8_t>(segment_);
    work.table = segment_table_;
    return;
  }
  if (coding_.sets[0]) work.limit = coding_.sets[0]->cost(work.plane, nullptr, m_);
  if (kManyOutside * outside_ > m_) {
    if (!work.whole) split();
    single_.take(work.plane, m_);
  }
  work.sample.take(work.symbols, pairs);
}

uint8_t ChunkCoder::sampled_top() const {
  uint8_t sample[kTopSample * 4], planes[4][kTopSample];
  const size_t width = coding_.width;
  // Gathered before any is looked at: they lie far apart, and so are all on their way at once.
  size_t n = 0;
  sample_blocks(n_, kTopSample, [&](size_t first, size_t count) {
    std::memcpy(sample + n * width, elements_ + first * width, count * width);
    n += count;
  });
  uint8_t* const to[4] = {planes[0], planes[1], planes[2], planes[3]};
  loops_.split(sample, n, coding_.width, kFloat, to);
  const uint8_t* exponents = planes[0];
  uint8_t most = 0, least = 255;  // least: of those that are not 0, minus 1
  for (size_t i = 0; i < n; ++i) {
    most = std::max(most, exponents[i]);
    least = std::min(least, static_cast<uint8_t>(exponents[i] - 1));
  }
  // One window holds all: the lowest is the one that ends with the largest.
  if (most <= least + kWindowSize) return most;
  SymbolCounter counter;
  counter.add(exponents, n);
  Histogram counts;
  counter.sum(counts);
  return best_top(counts);
}

void ChunkCoder::look_at_plane(int p) {
  PlaneWork& work = works_[p];
  if (all_equal(work.plane, m_, 1)) {
    work.record.mode = kConst;
    work.record.value = work.plane[0];
    return;
  }
  if (coding_.layout == kFloat && coding_.speed == kFast) return;
  if (coding_.speed == kSegments) {
    if (p > 0) return;
    work.record.table = static_cast<uint8_t>(segment_);
    work.table = segment_table_;
    return use_bytes(work);
  }
  if (coding_.sets[p]) work.limit = coding_.sets[p]->cost(work.plane, above(p), m_);
  if (p > 0 && m_ > kSampled && !promising(work.plane, m_)) return;
  use_bytes(work);
  work.sample.take(work.symbols, m_);
}

void ChunkCoder::use_bytes(PlaneWork& work) {
  work.record.mode = kBytes;
  work.symbols = work.plane;
  work.symbol_count = m_;
}

void ChunkCoder::choose_tables(TableSet& tables) {
  if (form_ != kFormPlanes || coding_.speed == kSegments) return;
  for (int p = 0; p < planes_; ++p) {
    PlaneWork& work = works_[p];
    if (work.record.mode == kPair && !choose_pairs(work, tables)) {
      if (!work.whole) split();
      use_bytes(work);
      work.sample.take(work.symbols, m_);
    }
    if (work.record.mode == kBytes && !choose_bytes(work, p, tables)) work.record.mode = kRaw;
    const int64_t raw = 8 * static_cast<int64_t>(m_) * kCostUnit;
    if (work.record.mode == kRaw && raw >= work.limit) work.record.mode = kContext;
  }
}

bool ChunkCoder::choose_pairs(PlaneWork& work, TableSet& tables) {
  int64_t pairs, single;
  const int t = tables.estimate(work.sample, 1, &pairs);
  pairs += static_cast<int64_t>(outside_) * kPatchBits * kCostUnit;
  if (kManyOutside * outside_ > m_) {
    tables.estimate(single_, 0, &single);
    if (single <= pairs) return false;
  }
  return use(work, t, pairs, 1, tables);
}

bool ChunkCoder::choose_bytes(PlaneWork& work, int p, TableSet& tables) {
  int64_t cost;
  const int t = tables.estimate(work.sample, 2 * p, &cost);
  return use(work, t, cost, 2 * p, tables);
}

bool ChunkCoder::use(PlaneWork& work, int t, int64_t cost, int kind, TableSet& tables) {
  if ((t < 0 && tables.full()) || !pays(cost, m_)) return false;
  if (cost >= work.limit) {
    work.record.mode = kContext;
    return true;
  }
  if (t < 0) {
    SymbolCounter counter;
    Histogram counts;
    counter.add(work.symbols, work.symbol_count);
    counter.sum(counts);
    t = tables.add(counts, kind);
  }
  work.record.table = static_cast<uint8_t>(t);
  work.table = &tables[t];
  return true;
}

void ChunkCoder::prepare() {
  if (form_ != kFormPlanes) return;
  // Contexts first: they need the planes as they are, and streams of bytes are made from planes
  // in which rare symbols are replaced.
  for (int p = 0; p < planes_; ++p)
    if (works_[p].record.mode == kContext) code_contexts(p);
  for (int p = 0; p < planes_; ++p) {
    PlaneWork& work = works_[p];
    if (work.record.mode == kBytes) {
      work.patch_count = loops_.substitute(*work.table, work.symbols, m_, work.patch_at,
                                           work.patches, most_patches(m_));
      work.whole = work.patch_count == 0;
    } else if (work.record.mode == kPair) {
      find_pair_patches(loops_.substitute(*work.table, work.symbols, work.symbol_count, rare_at_,
                                          rare_, most_patches(m_)));
    } else {
      continue;
    }
    if (3 * work.patch_count < m_) start_stream(work);
  }
}

void ChunkCoder::code_contexts(int p) {
  PlaneWork& work = works_[p];
  const ContextSet& set = *coding_.sets[p];
  const size_t lanes = choose_lanes(m_);
  std::fill(work.stream.states, work.stream.states + lanes, kLower);
  work.stream.out = set.encode(work.plane, above(p), m_, work.stream.states, work.words_end);
  work.symbol_count = m_;
  for (int q = 0; q < p; ++q) work.record.table += coding_.sets[q] != nullptr;
}

// The exponents that the window does not have, and what becomes wrong with rare pairs coded as
// others.
void ChunkCoder::find_pair_patches(size_t rare) {
  PlaneWork& work = works_[0];
  const size_t limit = most_patches(m_);
  if (outside_ >= limit || rare >= limit) {
    work.patch_count = limit;
    return;
  }
  size_t found = 0, next = 0;
  const auto add = [&](size_t at) {
    if (found == limit) return;
    work.patch_at[found] = static_cast<uint16_t>(at);
    work.patches[found++] = exponent(at);
  };
  const uint8_t top = work.record.top;
  for (size_t r = 0; r < rare; ++r) {
    const size_t even = 2 * size_t{rare_at_[r]};
    while (next < outside_ && outside_at_[next] < even) add(outside_at_[next++]);
    const uint8_t coded = work.symbols[rare_at_[r]];
    for (size_t at = even; at < std::min(m_, even + 2); ++at) {
      const unsigned nibble = at == even ? coded & 15 : coded >> 4;
      if (window_exponent(nibble, top) != exponent(at)) add(at);
    }
    while (next < outside_ && outside_at_[next] < even + 2) ++next;
  }
  while (next < outside_) add(outside_at_[next++]);
  work.patch_count = found;
}

// The symbols that fill no two steps of 32 lanes.
void ChunkCoder::start_stream(PlaneWork& work) {
  const size_t n = work.symbol_count, lanes = choose_lanes(n);
  const size_t whole = lanes == kMaxLanes ? n / (2 * kMaxLanes) * (2 * kMaxLanes) : 0;
  EncodeStream& stream = work.stream;
  std::fill(stream.states, stream.states + lanes, kLower);
  stream.table = work.table;
  stream.out = work.words_end;
  for (size_t i = n; i-- > whole;)
    stream.out = put_symbol(stream.states[i % lanes], *work.table, work.symbols[i], stream.out);
  stream.symbols = work.symbols + whole;
  stream.steps = whole / kMaxLanes;
}

void ChunkCoder::collect(std::vector<EncodeStream*>& streams) {
  if (form_ != kFormPlanes) return;
  for (int p = 0; p < planes_; ++p)
    if (works_[p].stream.steps) streams.push_back(&works_[p].stream);
}

}  // namespace latentpack::planes
