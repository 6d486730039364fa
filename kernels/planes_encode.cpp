// Encoding of arrays by byte planes; planes_ref.py is the definition.
//
// Chunks are coded in parallel, a few at once by each thread, so that the steps of one stream
// fill the pauses of another's. Two things happen in the order of the chunks, so that the bytes
// do not depend on the number of threads: the choice of tables, and the taking of a place.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "planes_chunk.h"

namespace latentpack::planes {
namespace {

// Lets group after group of chunks through, in order. The wait is short where every thread has a
// core: each comes back when the others have done about as much. Where not, waiters sleep.
class Turn {
 public:
  void wait(size_t first) {
    for (int tries = 0; tries < kTries; ++tries) {
      if (next_.load(std::memory_order_acquire) == first) return;
#if LATENTPACK_X86
      __builtin_ia32_pause();
#endif
    }
    std::unique_lock<std::mutex> lock(mutex_);
    ++sleepers_;
    changed_.wait(lock, [&] { return next_.load() == first; });
    --sleepers_;
  }
  void pass(size_t next) {
    next_.store(next);
    if (sleepers_.load() == 0) return;  // who comes now sees `next`
    const std::lock_guard<std::mutex> lock(mutex_);
    changed_.notify_all();
  }

 private:
  static constexpr int kTries = 200;
  std::atomic<size_t> next_{0};
  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

// Whole steps of streams of any lengths, kStreams at once.
void run_steps(const EncodeLoops& loops, std::vector<EncodeStream*>& streams) {
  while (!streams.empty()) {
    const size_t count = std::min<size_t>(kStreams, streams.size());
    EncodeStream** const last = streams.data() + streams.size() - count;
    loops.encode_steps(last, static_cast<int>(count));
    streams.erase(std::remove_if(streams.end() - static_cast<ptrdiff_t>(count), streams.end(),
                                 [](const EncodeStream* stream) { return !stream->steps; }),
                  streams.end());
  }
}

class Encoder {
 public:
  Encoder(const uint8_t* data, size_t n, const Coding& coding, size_t chunk, int threads,
          uint8_t* out)
      : records((n + chunk - 1) / chunk), data_(data), n_(n), coding_(coding), chunk_(chunk),
        out_(out), loops_(encode_loops_for(coding.isa)), segments_(n, records.size()),
        group_(group_size(coding, chunk)) {
    const size_t groups = (records.size() + group_ - 1) / group_;
    workers_ = std::max<size_t>(1, std::min<size_t>(threads, groups));
    if (coding.speed == kSegments)
      segments_.learn(data, n, coding.width, coding.layout, chunk, loops_, threads, tables);
  }

  void run() {
    std::vector<std::thread> others;
    start_others(others, workers_, [this](size_t) { return std::thread([this] { work(); }); });
    work();
    for (std::thread& other : others) other.join();
  }

  std::vector<ChunkRecord> records;
  TableSet tables;
  size_t used = 0;

 private:
  // Chunks that a thread codes at once: as many as fill the pauses, and fit into its cache.
  static size_t group_size(const Coding& coding, size_t chunk) {
    if (coding.layout == kFloat && coding.speed == kFast) return 1;
    return chunk * coding.width <= kMaxChunk ? kStreams : kStreams / 2;
  }

  void work() {
    std::vector<ChunkCoder> coders;
    coders.reserve(group_);
    const size_t used = std::min(group_, records.size());
    for (size_t k = 0; k < used; ++k) coders.emplace_back(coding_, std::min(n_, chunk_));
    std::vector<EncodeStream*> streams;
    for (size_t c; (c = next_.fetch_add(group_)) < records.size();)
      code(coders, c, std::min(records.size(), c + group_), streams);
    loops_.fence();
  }

  // Codes chunks [first, last).
  void code(std::vector<ChunkCoder>& coders, size_t first, size_t last,
            std::vector<EncodeStream*>& streams) {
    for (size_t c = first; c < last; ++c) look(coders[c - first], c);
    choosing_.wait(first);
    for (size_t c = first; c < last; ++c) coders[c - first].choose_tables(tables);
    choosing_.pass(last);
    for (size_t c = first; c < last; ++c) {
      coders[c - first].prepare();
      coders[c - first].collect(streams);
    }
    // While streams are coded, the next chunks are fetched.
    for (size_t k = 0; k < std::min(group_, streams.size()); ++k)
      streams[k]->ahead = next_after(first + k);
    run_steps(loops_, streams);
    for (size_t c = first; c < last; ++c)
      coders[c - first].finish(records[c], c + 1 == records.size());
    placing_.wait(first);
    for (size_t c = first; c < last; ++c) {
      records[c].start = used;
      used += records[c].size;
    }
    placing_.pass(last);
    const bool past_caches = n_ * coding_.width > kCacheBytes;
    for (size_t c = first; c < last; ++c)
      coders[c - first].seal(records[c], out_ + records[c].start, past_caches);
  }

  void look(ChunkCoder& coder, size_t c) {
    if (coding_.speed == kSegments) {
      const size_t t = segments_.of_chunk(c);
      coder.in_segment(t, segments_.tops[t], tables[static_cast<int>(t)]);
    }
    const size_t begin = c * chunk_;
    coder.look(data_ + begin * coding_.width, std::min(chunk_, n_ - begin));
  }

  // The chunk that this thread is likely to read in the place of chunk c.
  Ahead next_after(size_t c) const {
    const size_t begin = std::min(n_, (c + group_ * workers_) * chunk_);
    const size_t end = std::min(n_, begin + chunk_);
    return {data_ + begin * coding_.width, data_ + end * coding_.width};
  }

  const uint8_t* const data_;
  const size_t n_;
  const Coding& coding_;
  const size_t chunk_;
  uint8_t* const out_;
  const EncodeLoops& loops_;
  Segments segments_;
  const size_t group_;
  size_t workers_;
  Turn choosing_, placing_;
  std::atomic<size_t> next_{0};
};

}  // namespace

void encode(const uint8_t* data, size_t n, int width, int layout, int speed, int chunk_log2,
            Isa isa, int threads, uint8_t* out, std::string& head, size_t& used) {
  const size_t chunk = size_t{1} << chunk_log2;
  if (speed == kContextsOfBytes) layout = kBytePlanes;
  const Sets sets = learn_contexts(data, n, width, layout, speed, chunk, encode_loops_for(isa));
  const Coding coding{width, layout, speed, isa, sets};
  Encoder encoder(data, n, coding, chunk, threads, out);
  encoder.run();
  head.push_back(static_cast<char>(chunk_log2));
  encoder.tables.pack(head);
  head.push_back(static_cast<char>(sets.size() - std::count(sets.begin(), sets.end(), nullptr)));
  for (const auto& set : sets)
    if (set) set->pack(head);
  for (const ChunkRecord& record : encoder.records) append_record(record, width, layout, head);
  used = encoder.used;
}

}  // namespace latentpack::planes
