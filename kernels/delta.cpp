// The chunks of delta_ref.py for machines. The loops over blocks of 64 elements are written
// once and compiled for each instruction set; the compiler makes vectors of them.
#include "delta.h"

#include <algorithm>
#include <memory>
#include <type_traits>

#if LATENTPACK_X86
#define TARGET_AVX2 __attribute__((target("avx2,popcnt,lzcnt,bmi2")))
#define TARGET_AVX512 \
  __attribute__((target("avx2,popcnt,lzcnt,bmi2,avx512f,avx512bw,avx512vl,avx512dq,avx512cd")))
#define INLINE inline __attribute__((always_inline))
#else
#define INLINE inline
#endif

namespace latentpack::delta {
namespace {

template <typename U>
constexpr int kSubBits = sizeof(U) <= 2 ? 3 : sizeof(U) == 4 ? 2 : 1;

template <typename U>
constexpr int kMaxToken = ((8 * static_cast<int>(sizeof(U)) - 1 - kSubBits<U>) << kSubBits<U>) +
                          (1 << kSubBits<U>);

// Elements of any alignment.
template <typename U>
INLINE U load(const uint8_t* at, size_t i) {
  U value;
  std::memcpy(&value, at + i * sizeof(U), sizeof(U));
  return value;
}

template <typename U, int kOperation>
INLINE U ordered(U u) {
  using S = std::make_signed_t<U>;
  if (kOperation != kUlp) return u;
  const U sign = static_cast<U>(static_cast<S>(u) >> (8 * sizeof(U) - 1));
  const U rest = static_cast<U>(static_cast<U>(~U{0}) >> 1);
  return static_cast<U>(u ^ (sign & rest));
}

template <typename U, int kOperation>
INLINE U distance(U fresh, U base) {
  if (kOperation == kXor) return static_cast<U>(fresh ^ base);
  return static_cast<U>(ordered<U, kOperation>(fresh) - ordered<U, kOperation>(base));
}

template <typename U, int kOperation>
INLINE U moved(U base, U d) {
  if (kOperation == kXor) return static_cast<U>(base ^ d);
  return ordered<U, kOperation>(static_cast<U>(ordered<U, kOperation>(base) + d));
}

template <typename U>
INLINE U magnitude(U d) {
  return static_cast<std::make_signed_t<U>>(d) < 0 ? static_cast<U>(U{0} - d) : d;
}

template <typename U>
INLINE int raw_bits(U m) {
  using Wide = std::conditional_t<sizeof(U) == 8, uint64_t, uint32_t>;
  const Wide some = static_cast<Wide>(m) | 1;
  const int length = sizeof(U) == 8 ? 64 - __builtin_clzll(some)
                                    : 32 - __builtin_clz(static_cast<uint32_t>(some));
  return std::max(0, length - 1 - kSubBits<U>);
}

template <typename U>
INLINE int token(U d) {
  const U m = magnitude(d);
  const int r = raw_bits(m);
  const int t = (r << kSubBits<U>) + static_cast<int>(m >> r);
  return static_cast<std::make_signed_t<U>>(d) < 0 ? -t : t;
}

template <typename U>
INLINE size_t field(const Layout& layout, U base) {
  return static_cast<size_t>(base >> layout.shift) & ((size_t{1} << layout.bits) - 1);
}

template <typename U>
INLINE bool changed(const uint8_t* fresh, const uint8_t* base, size_t n) {
  U any = 0;
  for (size_t i = 0; i < n; ++i) any |= load<U>(fresh, i) ^ load<U>(base, i);
  return any != 0;
}

template <typename U, int kOperation>
INLINE void count_body(const Layout& layout, const uint8_t* fresh, const uint8_t* base, size_t n,
                       uint64_t* tokens, uint64_t* quiet, uint64_t* nibbles) {
  unsigned nibble = 0;
  for (size_t start = 0, block = 0; start < n; start += kBlock, ++block) {
    const size_t m = std::min(kBlock, n - start);
    const uint8_t* a = fresh + start * sizeof(U);
    const uint8_t* b = base + start * sizeof(U);
    if (changed<U>(a, b, m)) {
      nibble |= 1u << (block & 3);
      int16_t t[kBlock];
      for (size_t i = 0; i < m; ++i) {
        t[i] = static_cast<int16_t>(token(distance<U, kOperation>(load<U>(a, i), load<U>(b, i))));
      }
      for (size_t i = 0; i < m; ++i) {
        ++tokens[field(layout, load<U>(b, i)) << 8 | static_cast<size_t>(t[i] + kZero)];
      }
    } else {
      for (size_t i = 0; i < m; ++i) ++quiet[field(layout, load<U>(b, i))];
    }
    if ((block & 3) == 3 || start + kBlock >= n) {
      ++nibbles[nibble];
      nibble = 0;
    }
  }
}

class BitWriter {
 public:
  explicit BitWriter(std::vector<uint8_t>& to) : to_(to) {}
  // Room for the raw bits of a block.
  void reserve() {
    if (to_.size() < at_ + 8 * (kBlock + 1)) to_.resize(std::max(to_.size() * 2, size_t{4096}));
  }
  void put(uint64_t value, int bits) {
    word_ |= value << fill_;
    fill_ += bits;
    if (fill_ < 64) return;
    std::memcpy(to_.data() + at_, &word_, 8);
    at_ += 8;
    fill_ -= 64;
    word_ = fill_ ? value >> (bits - fill_) : 0;
  }
  void finish() {
    reserve();
    std::memcpy(to_.data() + at_, &word_, 8);
    to_.resize(at_ + static_cast<size_t>(fill_ + 7) / 8);
  }

 private:
  std::vector<uint8_t>& to_;
  size_t at_ = 0;
  uint64_t word_ = 0;
  int fill_ = 0;
};

class BitReader {
 public:
  BitReader(const uint8_t* data, size_t bytes) : data_(data), bytes_(bytes) {}
  uint64_t get(int bits) {
    const size_t byte = at_ >> 3, shift = at_ & 7;
    at_ += static_cast<size_t>(bits);
    uint8_t window[16] = {};
    const uint8_t* from = data_ + byte;
    if (byte + 9 > bytes_) {
      if (byte < bytes_) std::memcpy(window, from, bytes_ - byte);
      from = window;
    }
    uint64_t value;
    std::memcpy(&value, from, 8);
    value >>= shift;
    if (shift + static_cast<size_t>(bits) > 64) value |= uint64_t{from[8]} << (64 - shift);
    return value & ((uint64_t{1} << bits) - 1);
  }
  // Whether exactly all bytes were read, and the bits left over are zeros.
  bool ended() const {
    if ((at_ + 7) / 8 != bytes_) return false;
    return (at_ & 7) == 0 || data_[bytes_ - 1] >> (at_ & 7) == 0;
  }
  bool overrun() const { return at_ > 8 * bytes_; }

 private:
  const uint8_t* data_;
  size_t bytes_;
  size_t at_ = 0;
};

// Tokens, and flags[block] whether a block of 64 changed.
template <typename U, int kOperation>
INLINE void tokens_body(const Layout&, const uint8_t* fresh, const uint8_t* base, size_t n,
                        int16_t* symbols, uint8_t* flags, BitWriter& raw) {
  for (size_t start = 0; start < n; start += kBlock) {
    const size_t m = std::min(kBlock, n - start);
    const uint8_t* a = fresh + start * sizeof(U);
    const uint8_t* b = base + start * sizeof(U);
    int16_t* t = symbols + start;
    flags[start / kBlock] = changed<U>(a, b, m);
    if (!flags[start / kBlock]) {
      std::memset(t, 0, m * sizeof *t);
      continue;
    }
    U d[kBlock], all = 0;
    for (size_t i = 0; i < m; ++i) {
      d[i] = distance<U, kOperation>(load<U>(a, i), load<U>(b, i));
      t[i] = static_cast<int16_t>(token(d[i]));
      all |= magnitude(d[i]);
    }
    if (all >> (kSubBits<U> + 1) == 0) continue;
    raw.reserve();
    for (size_t i = 0; i < m; ++i) {
      const U size = magnitude(d[i]);
      const int r = raw_bits(size);
      if (r) raw.put(size & ((uint64_t{1} << r) - 1), r);
    }
  }
}

// n elements from their tokens; false if a token is not legal or the raw bits have run out.
template <typename U, int kOperation>
INLINE bool join_body(const uint8_t* base, const int16_t* symbols, size_t n, BitReader& raw,
                      uint8_t* out) {
  for (size_t start = 0; start < n; start += kBlock) {
    const size_t m = std::min(kBlock, n - start);
    const uint8_t* b = base + start * sizeof(U);
    const int16_t* t = symbols + start;
    int least = 0, most = 0;
    for (size_t i = 0; i < m; ++i) {
      least = std::min<int>(least, t[i]);
      most = std::max<int>(most, t[i]);
    }
    most = std::max(most, -least);
    U d[kBlock];
    if (most < 2 << kSubBits<U>) {
      for (size_t i = 0; i < m; ++i) d[i] = static_cast<U>(t[i]);
    } else if (most > kMaxToken<U>) {
      return false;
    } else {
      for (size_t i = 0; i < m; ++i) {
        const int size = t[i] < 0 ? -t[i] : t[i];
        const int r = std::max(0, (size >> kSubBits<U>) - 1);
        uint64_t value = static_cast<uint64_t>(size - (r << kSubBits<U>));
        if (r) value = value << r | raw.get(r);
        d[i] = static_cast<U>(t[i] < 0 ? 0 - value : value);
      }
      if (raw.overrun()) return false;
    }
    U moved_to[kBlock];
    for (size_t i = 0; i < m; ++i) moved_to[i] = moved<U, kOperation>(load<U>(b, i), d[i]);
    std::memcpy(out + start * sizeof(U), moved_to, m * sizeof(U));
  }
  return true;
}

// The fields at which a new class begins, if classes rise by one from field to field or stay as
// they are, as runs do; else nothing.
struct Starts {
  uint8_t at[kMaxRows];
  int count = -1;
  Starts(const Layout& layout, const uint8_t* class_of) {
    if (layout.bits > 8 || class_of[0] != 0) return;
    int found = 0;
    for (int f = 1; f < 1 << layout.bits; ++f) {
      const int step = class_of[f] - class_of[f - 1];
      if (step != 0 && step != 1) return;
      at[found] = static_cast<uint8_t>(f);
      found += step;
    }
    count = found;
  }
};

template <typename U>
INLINE void classes_body(const Layout& layout, const uint8_t* class_of, const uint8_t* base,
                         size_t n, uint8_t* rows) {
  const Starts starts(layout, class_of);
  size_t i = 0;
  // Comparing with every start is quicker than looking up, as long as there are few.
  for (; starts.count >= 0 && i + kBlock <= n; i += kBlock) {
    uint8_t fields[kBlock], classes[kBlock] = {};
    for (size_t k = 0; k < kBlock; ++k) {
      fields[k] = static_cast<uint8_t>(field(layout, load<U>(base, i + k)));
    }
    for (int s = 0; s < starts.count; ++s) {
      for (size_t k = 0; k < kBlock; ++k) {
        classes[k] = static_cast<uint8_t>(classes[k] + (fields[k] >= starts.at[s]));
      }
    }
    std::memcpy(rows + i, classes, kBlock);
  }
  for (; i < n; ++i) rows[i] = class_of[field(layout, load<U>(base, i))];
}

struct Loops {
  void (*count)(const Layout&, const uint8_t*, const uint8_t*, size_t, uint64_t*, uint64_t*,
                uint64_t*);
  void (*tokens)(const Layout&, const uint8_t*, const uint8_t*, size_t, int16_t*, uint8_t*,
                 BitWriter&);
  bool (*join)(const uint8_t*, const int16_t*, size_t, BitReader&, uint8_t*);
  void (*classes)(const Layout&, const uint8_t*, const uint8_t*, size_t, uint8_t*);
};

#define LOOPS_FOR(NAME, TARGET)                                                                  \
  template <typename U, int kOperation>                                                          \
  struct NAME {                                                                                  \
    TARGET static void count(const Layout& layout, const uint8_t* a, const uint8_t* b, size_t n, \
                             uint64_t* tokens, uint64_t* quiet, uint64_t* nibbles) {             \
      count_body<U, kOperation>(layout, a, b, n, tokens, quiet, nibbles);                        \
    }                                                                                            \
    TARGET static void tokens(const Layout& layout, const uint8_t* a, const uint8_t* b,          \
                              size_t n, int16_t* t, uint8_t* flags, BitWriter& raw) {            \
      tokens_body<U, kOperation>(layout, a, b, n, t, flags, raw);                                \
    }                                                                                            \
    TARGET static bool join(const uint8_t* b, const int16_t* t, size_t n, BitReader& raw,        \
                            uint8_t* out) {                                                      \
      return join_body<U, kOperation>(b, t, n, raw, out);                                        \
    }                                                                                            \
    TARGET static void classes(const Layout& layout, const uint8_t* class_of, const uint8_t* b,  \
                               size_t n, uint8_t* rows) {                                        \
      classes_body<U>(layout, class_of, b, n, rows);                                             \
    }                                                                                            \
    static Loops all() { return {count, tokens, join, classes}; }                                \
  }

LOOPS_FOR(Plain, );
#if LATENTPACK_X86
LOOPS_FOR(Avx2, TARGET_AVX2);
LOOPS_FOR(Avx512, TARGET_AVX512);
#endif

template <typename U, int kOperation>
Loops loops_of(Isa isa) {
#if LATENTPACK_X86
  if (isa >= Isa::kAvx512) return Avx512<U, kOperation>::all();
  if (isa >= Isa::kAvx2) return Avx2<U, kOperation>::all();
#endif
  (void)isa;
  return Plain<U, kOperation>::all();
}

template <typename U>
Loops loops_of(int operation, Isa isa) {
  if (operation == kUlp) return loops_of<U, kUlp>(isa);
  return operation == kXor ? loops_of<U, kXor>(isa) : loops_of<U, kDifference>(isa);
}

Loops loops_for(const Layout& layout, Isa isa) {
  switch (layout.width) {
    case 1: return loops_of<uint8_t>(layout.operation, isa);
    case 2: return loops_of<uint16_t>(layout.operation, isa);
    case 4: return loops_of<uint32_t>(layout.operation, isa);
    default: return loops_of<uint64_t>(layout.operation, isa);
  }
}

size_t blocks_of(size_t n) { return (n + kBlock - 1) / kBlock; }

// The row of those elements whose block did not change.
void skip_unchanged(const Coding& coding, const uint8_t* flags, size_t n, uint8_t* rows) {
  for (size_t start = 0; start < n; start += kBlock) {
    if (flags[start / kBlock]) continue;
    std::memset(rows + start, coding.classes + 1, std::min(kBlock, n - start));
  }
}

// Elements decoded at once: what is made of them stays in the nearest caches.
constexpr size_t kPart = size_t{1} << 13;

const char* parse_stream(const uint8_t* stream, size_t bytes, Decoding& state) {
  state = {};
  if (bytes == 0) return nullptr;
  if (stream[0] > 5) return "a stream of a delta has too many lanes";
  state.lanes = 1u << stream[0];
  const size_t head = 1 + 4 * size_t{state.lanes};
  if (bytes < head || (bytes - head) % 2) return "a stream of a delta has an impossible size";
  std::memcpy(state.states, stream + 1, head - 1);
  for (uint32_t lane = 0; lane < state.lanes; ++lane) {
    if (state.states[lane] < kLower) return "a state of a delta's stream is too small";
  }
  return nullptr;
}

}  // namespace

void count(const Layout& layout, const void* fresh, const void* base, size_t n, uint64_t* tokens,
           uint64_t* quiet, uint64_t* nibbles, Isa isa) {
  loops_for(layout, isa).count(layout, static_cast<const uint8_t*>(fresh),
                               static_cast<const uint8_t*>(base), n, tokens, quiet, nibbles);
}

Status encode(const Coding& coding, Prepared& tables, Isa isa, const void* fresh,
              const void* base, size_t n, int lanes, Encoded& stream, std::vector<uint8_t>& raw) {
  const Loops loops = loops_for(coding.layout, isa);
  const auto* a = static_cast<const uint8_t*>(fresh);
  const auto* b = static_cast<const uint8_t*>(base);
  const size_t blocks = blocks_of(n), nibbles = coding.blocks ? (blocks + 3) / 4 : 0;
  std::unique_ptr<int16_t[]> symbols(new int16_t[nibbles + n]);
  std::unique_ptr<uint8_t[]> rows(new uint8_t[nibbles + n]), flags(new uint8_t[blocks]);
  BitWriter writer(raw);
  loops.tokens(coding.layout, a, b, n, symbols.get() + nibbles, flags.get(), writer);
  writer.finish();
  loops.classes(coding.layout, coding.class_of, b, n, rows.get() + nibbles);
  if (coding.blocks) {
    std::fill_n(symbols.get(), nibbles, int16_t{0});
    for (size_t k = 0; k < blocks; ++k) {
      symbols[k / 4] = static_cast<int16_t>(symbols[k / 4] | flags[k] << (k & 3));
    }
    std::memset(rows.get(), coding.classes, nibbles);
    skip_unchanged(coding, flags.get(), n, rows.get() + nibbles);
  }
  return latentpack::encode(tables, isa, symbols.get(), rows.get(), nibbles + n, lanes, stream);
}

const char* decode(const Coding& coding, Prepared& tables, Isa isa, const uint8_t* stream,
                   size_t stream_bytes, const uint8_t* raw, size_t raw_bytes, const void* base,
                   size_t n, void* out) {
  Decoding state;
  if (const char* error = parse_stream(stream, stream_bytes, state)) return error;
  const size_t head = state.lanes ? 1 + 4 * size_t{state.lanes} : 0;
  const uint8_t* words = stream + head;
  const size_t words_bytes = stream_bytes - head;
  const auto get = [&](const uint8_t* rows, size_t count, int16_t* symbols) {
    return latentpack::decode(tables, isa, state, words, words_bytes, rows, count, symbols) ==
           Status::kOk;
  };
  const Loops loops = loops_for(coding.layout, isa);
  const auto* b = static_cast<const uint8_t*>(base);
  auto* to = static_cast<uint8_t*>(out);
  std::unique_ptr<uint8_t[]> rows(new uint8_t[kPart]);
  std::unique_ptr<int16_t[]> symbols(new int16_t[kPart]);
  std::vector<uint8_t> flags;
  if (coding.blocks) {
    const size_t nibbles = (blocks_of(n) + 3) / 4;
    flags.resize(4 * nibbles);
    std::memset(rows.get(), coding.classes, kPart);
    for (size_t start = 0; start < nibbles; start += kPart) {
      const size_t m = std::min(kPart, nibbles - start);
      if (!get(rows.get(), m, symbols.get())) return "the stream of a delta is damaged";
      for (size_t i = 0; i < m; ++i) {
        if (symbols[i] < 0 || symbols[i] > 15) return "a nibble of blocks is outside 0 to 15";
        for (int k = 0; k < 4; ++k) {
          flags[4 * (start + i) + static_cast<size_t>(k)] = symbols[i] >> k & 1;
        }
      }
    }
  }
  BitReader reader(raw, raw_bytes);
  for (size_t start = 0; start < n; start += kPart) {
    const size_t m = std::min(kPart, n - start), at = start * static_cast<size_t>(coding.layout.width);
    loops.classes(coding.layout, coding.class_of, b + at, m, rows.get());
    if (coding.blocks) skip_unchanged(coding, flags.data() + start / kBlock, m, rows.get());
    if (!get(rows.get(), m, symbols.get())) return "the stream of a delta is damaged";
    if (!loops.join(b + at, symbols.get(), m, reader, to + at)) {
      return "a token of a delta is not legal, or its raw bits end too early";
    }
  }
  bool ended = state.at == words_bytes && reader.ended();
  for (uint32_t lane = 0; lane < state.lanes; ++lane) ended &= state.states[lane] == kLower;
  return ended ? nullptr : "a chunk of a delta does not end cleanly";
}

}  // namespace latentpack::delta
