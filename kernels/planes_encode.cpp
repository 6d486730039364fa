// Encoding of arrays by byte planes; planes_ref.py is the definition.
//
// Chunks are coded in parallel. Two steps happen in the order of the chunks, so that the bytes
// do not depend on the number of threads: the choice of tables, and the taking of a place.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>

#include "planes.h"
#include "xxh3.h"

namespace latentpack::planes {
namespace {

// From one patch in so many exponents on, single exponents are considered.
constexpr size_t kManyOutside = 128;
constexpr size_t kStreamHead = 1 + 4 * kMaxLanes;
constexpr size_t kWordSlack = 64;  // below its words, `encode_steps` may overwrite so many bytes

// Lets chunk after chunk through, in order.
class Turn {
 public:
  void wait(size_t chunk) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return next_ == chunk; });
  }
  void pass() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ++next_;
    }
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t next_ = 0;
};

// A plane on its way: its bytes, what is to be coded of them, and the result.
struct PlaneWork {
  PlaneRecord record;
  Buffer plane, symbols, stream;
  size_t stream_bytes = 0;
  size_t symbol_count = 0;
  Sample sample, single;  // of the symbols; of single exponents, where there are many patches
  size_t outside = 0;
  int64_t limit = INT64_MAX;  // what the plane costs with contexts
  const Table* table = nullptr;
  size_t fixed_bytes(size_t m) const {
    return record.mode == kRaw ? m : record.mode == kWindow ? (m + 1) / 2 : 0;
  }
};

bool all_equal(const uint8_t* data, size_t bytes, size_t width) {
  return bytes <= width || std::memcmp(data, data + width, bytes - width) == 0;
}

uint8_t choose_top(const uint8_t* exponents, size_t n) {
  Histogram counts;
  count_sample(exponents, n, 2048, counts);
  return best_top(counts);
}

bool pays(int64_t cost, size_t m) { return cost * 100 < 99 * 8 * static_cast<int64_t>(m) * kCostUnit; }

bool promising(const uint8_t* plane, size_t m) {
  Histogram glance;
  count_sample(plane, m, 1024, glance);
  int64_t total = 0;
  for (const uint32_t count : glance) total += count;
  return entropy(glance) * 10 < 74 * total * kCostUnit;
}

using Sets = std::vector<std::unique_ptr<ContextSet>>;

// Codes one chunk at a time; the buffers are made once.
class ChunkCoder {
 public:
  ChunkCoder(int width, int layout, int speed, Isa isa, size_t chunk_elements, const Sets& sets)
      : sets_(sets), width_(width), layout_(layout), speed_(speed), isa_(isa),
        loops_(encode_loops_for(isa)), planes_(plane_count(layout, width)), works_(planes_) {
    const size_t m = chunk_elements;
    for (PlaneWork& work : works_) {
      work.plane = make_buffer(m);
      work.symbols = make_buffer(m);
      work.stream = make_buffer(kStreamHead + 2 * m);
    }
    chunk_ = make_buffer(m * width);
    words_ = make_buffer(2 * m + kWordSlack);
    decoded_ = make_buffer(m);
    positions_ = std::unique_ptr<uint16_t[]>(new uint16_t[m / 3 + 1]);
  }

  // In the way kSegments, before `look`.
  void in_segment(size_t segment, uint8_t top, const Table& table) {
    segment_ = segment;
    segment_top_ = top;
    segment_table_ = &table;
  }

  // Everything that needs no table. False: the chunk is one value, or stored, and done.
  bool look(const uint8_t* elements, size_t n, Ahead ahead, ChunkRecord& record) {
    ahead_ = ahead;
    elements_ = elements;
    n_ = n;
    m_ = plane_bytes(layout_, n);
    if (all_equal(elements, n * width_, width_)) {
      record.form = kFormConst;
      std::memcpy(record.value, elements, width_);
      return false;
    }
    if (speed_ == kStored) {
      record.form = kFormRaw;
      record.size = n * width_;
      return false;
    }
    uint8_t* planes[kMaxWidth];
    for (int p = 0; p < planes_; ++p) planes[p] = works_[p].plane.get();
    loops_.split(elements, n, width_, layout_, planes);
    for (int p = 0; p < planes_; ++p) look_at_plane(p);
    return true;
  }

  void choose_tables(TableSet& tables) {
    if (speed_ == kSegments) return;
    for (int p = 0; p < planes_; ++p) {
      PlaneWork& work = works_[p];
      if (work.record.mode == kPair && !choose_pairs(work, tables)) prepare_bytes(work);
      if (work.record.mode == kBytes && !choose_bytes(work, p, tables)) work.record.mode = kRaw;
      const int64_t raw = 8 * static_cast<int64_t>(m_) * kCostUnit;
      if (work.record.mode == kRaw && raw >= work.limit) work.record.mode = kContext;
    }
  }

  // Codes the planes and says how many bytes the chunk takes.
  void code(ChunkRecord& record) {
    size_t size = 0;
    for (int p = 0; p < planes_; ++p) {
      PlaneWork& work = works_[p];
      if (work.record.mode == kPair || work.record.mode == kBytes) code_plane(work);
      if (work.record.mode == kContext) code_contexts(p);
      size += padded(work.fixed_bytes(m_)) + work.stream_bytes;
    }
    const Form planes = speed_ == kContextsOfBytes ? kFormBytes : kFormPlanes;
    record.form = size < n_ * width_ ? planes : kFormRaw;
    record.size = std::min(size, n_ * width_);
    for (int p = 0; p < planes_; ++p) record.planes[p] = works_[p].record;
  }

  // Puts the chunk together with zeros up to record.size, and takes the checksum. Returns it.
  const uint8_t* assemble(ChunkRecord& record) {
    uint8_t* at = chunk_.get();
    const auto append = [&at](const uint8_t* data, size_t bytes, size_t room) {
      std::memcpy(at, data, bytes);
      std::memset(at + bytes, 0, room - bytes);
      at += room;
    };
    if (record.form == kFormRaw) {
      append(elements_, n_ * width_, record.size);
    } else {
      for (const PlaneWork& work : works_) {
        const size_t bytes = work.fixed_bytes(m_);
        const bool window = work.record.mode == kWindow;
        append(window ? work.symbols.get() : work.plane.get(), bytes, padded(bytes));
      }
      for (const PlaneWork& work : works_)
        append(work.stream.get(), work.stream_bytes, work.stream_bytes);
      append(at, 0, record.size - static_cast<size_t>(at - chunk_.get()));
    }
    record.checksum = static_cast<uint32_t>(xxh3::hash64(chunk_.get(), record.size, isa_));
    return chunk_.get();
  }

 private:
  void look_at_plane(int p) {
    PlaneWork& work = works_[p];
    work.record = PlaneRecord{};
    work.limit = INT64_MAX;
    work.stream_bytes = 0;
    if (all_equal(work.plane.get(), m_, 1)) {
      work.record.mode = kConst;
      work.record.value = work.plane[0];
      return;
    }
    if (speed_ == kSegments) {
      if (p == 0) prepare_in_segment(work);
      return;
    }
    if (sets_[p]) work.limit = sets_[p]->cost(work.plane.get(), above(p), m_);
    if (layout_ == kFloat && speed_ == kFast) {
      if (p == 0) code_window(work);
    } else if (layout_ == kFloat && p == 0) {
      work.record.mode = kPair;
      work.record.top = choose_top(work.plane.get(), m_);
      work.symbol_count = (m_ + 1) / 2;
      work.outside =
          loops_.to_nibbles(work.plane.get(), m_, work.record.top, work.symbols.get());
      if (kManyOutside * work.outside > m_) work.single.take(work.plane.get(), m_);
      work.sample.take(work.symbols.get(), work.symbol_count);
    } else if (p == 0 || m_ <= kSampled || promising(work.plane.get(), m_)) {
      prepare_bytes(work);
    }
  }

  void prepare_in_segment(PlaneWork& work) {
    work.record.table = static_cast<uint8_t>(segment_);
    work.table = segment_table_;
    if (layout_ != kFloat) return prepare_bytes(work);
    work.record.mode = kPair;
    work.record.top = segment_top_;
    work.symbol_count = (m_ + 1) / 2;
    loops_.to_nibbles(work.plane.get(), m_, segment_top_, work.symbols.get());
  }

  void prepare_bytes(PlaneWork& work) {
    work.record.mode = kBytes;
    work.symbol_count = m_;
    std::memcpy(work.symbols.get(), work.plane.get(), m_);
    work.sample.take(work.plane.get(), m_);
  }

  bool choose_pairs(PlaneWork& work, TableSet& tables) {
    int64_t pairs, single;
    const int t = tables.estimate(work.sample, 1, &pairs);
    pairs += static_cast<int64_t>(work.outside) * kPatchBits * kCostUnit;
    if (kManyOutside * work.outside > m_) {
      tables.estimate(work.single, 0, &single);
      if (single <= pairs) return false;
    }
    return use(work, t, pairs, 1, tables);
  }

  bool choose_bytes(PlaneWork& work, int p, TableSet& tables) {
    int64_t cost;
    const int t = tables.estimate(work.sample, 2 * p, &cost);
    return use(work, t, cost, 2 * p, tables);
  }

  bool use(PlaneWork& work, int t, int64_t cost, int kind, TableSet& tables) {
    if ((t < 0 && tables.full()) || !pays(cost, m_)) return false;
    if (cost >= work.limit) {
      work.record.mode = kContext;
      return true;
    }
    if (t < 0) {
      SymbolCounter counter;
      Histogram counts;
      counter.add(work.symbols.get(), work.symbol_count);
      counter.sum(counts);
      t = tables.add(counts, kind);
    }
    work.record.table = static_cast<uint8_t>(t);
    work.table = &tables[t];
    return true;
  }

  void code_window(PlaneWork& work) {
    work.record.top = choose_top(work.plane.get(), m_);
    loops_.to_nibbles(work.plane.get(), m_, work.record.top, work.symbols.get());
    loops_for(isa_).from_nibbles(work.symbols.get(), m_, work.record.top, decoded_.get());
    if (append_patches(work, decoded_.get(), (m_ + 1) / 2)) work.record.mode = kWindow;
  }

  void code_plane(PlaneWork& work) {
    uint8_t* symbols = work.symbols.get();
    loops_.substitute(*work.table, symbols, work.symbol_count);
    encode_stream(work);
    work.record.size = static_cast<uint32_t>(work.stream_bytes);
    const uint8_t* decoded = symbols;
    if (work.record.mode == kPair) {
      loops_for(isa_).from_nibbles(symbols, m_, work.record.top, decoded_.get());
      decoded = decoded_.get();
    }
    if (!append_patches(work, decoded, work.stream_bytes)) work.record.mode = kRaw;
  }

  void code_contexts(int p) {
    PlaneWork& work = works_[p];
    uint8_t* const end = words_.get() + kWordSlack + 2 * m_;
    work.stream_bytes =
        sets_[p]->encode(work.plane.get(), above(p), m_, end, work.stream.get());
    work.record.size = static_cast<uint32_t>(work.stream_bytes);
    for (int q = 0; q < p; ++q) work.record.table += sets_[q] != nullptr;
    if (work.stream_bytes < m_) return;
    work.record.mode = kRaw;
    work.stream_bytes = 0;
  }

  const uint8_t* above(int p) const { return p ? works_[p - 1].plane.get() : nullptr; }

  // False, and no stream, if what is there and the patches take as much as the plane.
  bool append_patches(PlaneWork& work, const uint8_t* decoded, size_t bytes) {
    uint16_t* at = positions_.get();
    const size_t count = loops_.differences(work.plane.get(), decoded, m_, at, m_ / 3 + 1);
    if (bytes + 3 * count >= m_) {
      work.stream_bytes = 0;
      return false;
    }
    uint8_t* out = work.stream.get() + work.stream_bytes;
    std::memcpy(out, at, 2 * count);
    for (size_t i = 0; i < count; ++i) out[2 * count + i] = work.plane[at[i]];
    work.stream_bytes += 3 * count;
    work.record.patches = static_cast<uint16_t>(count);
    return true;
  }

  void encode_stream(PlaneWork& work) {
    const size_t lanes = choose_lanes(work.symbol_count), n = work.symbol_count;
    const uint8_t* symbols = work.symbols.get();
    const Table& table = *work.table;
    uint32_t states[kMaxLanes];
    std::fill(states, states + lanes, kLower);
    uint8_t* const end = words_.get() + kWordSlack + 2 * n;
    uint8_t* out = end;
    const size_t whole = lanes == 32 ? n / 32 * 32 : 0;
    for (size_t i = n; i-- > whole;) out = put_symbol(states[i % lanes], table, symbols[i], out);
    out = loops_.encode_steps(states, table, symbols + whole, whole / 32, out, ahead_);
    ahead_ = Ahead{};
    uint8_t* to = work.stream.get();
    *to++ = lanes == 32 ? 5 : lanes == 4 ? 2 : 0;
    std::memcpy(to, states, 4 * lanes);
    std::memcpy(to + 4 * lanes, out, static_cast<size_t>(end - out));
    work.stream_bytes = 1 + 4 * lanes + static_cast<size_t>(end - out);
  }

  const Sets& sets_;
  const int width_, layout_, speed_;
  const Isa isa_;
  const EncodeLoops& loops_;
  const int planes_;
  std::vector<PlaneWork> works_;
  Buffer chunk_, words_, decoded_;
  Ahead ahead_;
  size_t segment_ = 0;
  uint8_t segment_top_ = 0;
  const Table* segment_table_ = nullptr;
  std::unique_ptr<uint16_t[]> positions_;
  const uint8_t* elements_ = nullptr;
  size_t n_ = 0, m_ = 0;
};

}  // namespace

void encode(const uint8_t* data, size_t n, int width, int layout, int speed, int chunk_log2,
            Isa isa, int threads, uint8_t* out, std::string& head, size_t& used) {
  const size_t chunk = size_t{1} << chunk_log2;
  const size_t count = (n + chunk - 1) >> chunk_log2;
  std::vector<ChunkRecord> records(count);
  TableSet tables;
  Turn choosing, placing;
  size_t end = 0;
  std::atomic<size_t> next{0};
  const size_t workers = std::max<size_t>(1, std::min<size_t>(threads, count));
  const bool past_caches = n * width > kCacheBytes;
  const EncodeLoops& loops = encode_loops_for(isa);
  if (speed == kContextsOfBytes) layout = kBytePlanes;
  const Sets sets = learn_contexts(data, n, width, layout, speed, chunk, loops);
  Segments segments(n, count);
  if (speed == kSegments) segments.learn(data, n, width, layout, chunk, loops, threads, tables);
  const auto work = [&](ChunkCoder& coder) {
    for (size_t c; (c = next.fetch_add(1)) < count;) {
      ChunkRecord& record = records[c];
      const uint8_t* elements = data + c * chunk * width;
      const size_t size = std::min(chunk, n - c * chunk);
      Ahead ahead;
      if (c + workers < count - 1) {
        ahead.at = elements + workers * chunk * width;
        ahead.end = ahead.at + chunk * width;
      }
      if (speed == kSegments) {
        const size_t t = segments.of_chunk(c);
        coder.in_segment(t, segments.tops[t], tables[static_cast<int>(t)]);
      }
      const bool coded = coder.look(elements, size, ahead, record);
      choosing.wait(c);
      if (coded) coder.choose_tables(tables);
      choosing.pass();
      if (coded) coder.code(record);
      if (c + 1 < count) record.size = padded(record.size);
      const uint8_t* bytes = record.form == kFormConst ? nullptr : coder.assemble(record);
      placing.wait(c);
      record.start = end;
      end += record.size;
      placing.pass();
      if (!bytes) continue;
      if (past_caches) loops.copy_past_caches(out + record.start, bytes, record.size);
      else std::memcpy(out + record.start, bytes, record.size);
    }
  };
  std::vector<ChunkCoder> coders;
  coders.reserve(workers);
  for (size_t w = 0; w < workers; ++w)
    coders.emplace_back(width, layout, speed, isa, std::min(n, chunk), sets);
  std::vector<std::thread> others;
  for (size_t w = 1; w < workers; ++w) others.emplace_back(work, std::ref(coders[w]));
  work(coders[0]);
  for (std::thread& other : others) other.join();
  head.push_back(static_cast<char>(chunk_log2));
  tables.pack(head);
  head.push_back(static_cast<char>(sets.size() - std::count(sets.begin(), sets.end(), nullptr)));
  for (const auto& set : sets)
    if (set) set->pack(head);
  for (const ChunkRecord& record : records) append_record(record, width, layout, head);
  used = end;
}

}  // namespace latentpack::planes
