// Coding of indexed symbols: lane bookkeeping, escapes, and the portable step kernels.
#include "rans.h"

#include <algorithm>
#include <memory>
#include <new>

#include "rans_careful.h"

namespace latentpack {

Isa best_isa() {
#if LATENTPACK_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
      __builtin_cpu_supports("avx512vbmi2") &&
      __builtin_cpu_supports("popcnt")) {
    return Isa::kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt")) return Isa::kAvx2;
#endif
  return Isa::kScalar;
}

DecodeSteps decode_steps_for(Isa isa, int lanes) {
#if LATENTPACK_X86
  if (isa >= Isa::kAvx512 && lanes >= 16) return decode_steps_avx512;
  // Eight lanes in one register wait as long as eight in eight, for a larger table.
  if (isa >= Isa::kAvx2 && lanes >= 16) return decode_steps_avx2;
#endif
  (void)isa;
  return decode_steps_scalar(lanes);
}

EncodeSteps encode_steps_for(Isa isa, int lanes, int precision) {
#if LATENTPACK_X86
  // Its division is exact for quotients below 2^21 only.
  if (isa >= Isa::kAvx512 && lanes >= 16 && precision >= 11) return encode_steps_avx512;
  if (isa >= Isa::kAvx2 && lanes >= 8) return encode_steps_avx2;
#endif
  (void)isa, (void)precision;
  return encode_steps_scalar(lanes);
}

namespace {

template <int kLanes>
size_t decode_scalar(const Prepared& tables, uint32_t* states, int, Reader& reader,
                     const uint8_t* index, size_t steps, int16_t* symbols) {
  const int precision = tables.precision;
  const uint32_t mask = (1u << precision) - 1;
  const uint8_t* values = tables.values.data();
  const uint32_t* entries = tables.entries.data();
  const int base = tables.base;
  const uint8_t* at = reader.at;
  const uint8_t* last = reader.limit - 2 * kLanes;
  uint32_t x[kLanes];
  std::memcpy(x, states, sizeof x);
  size_t done = 0;
  for (; done < steps && at <= last; ++done, index += kLanes, symbols += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      const uint32_t slot = x[j] & mask;
      const uint32_t row = index[j];
      const uint32_t value = values[row << precision | slot];
      if (value == 255) {
        std::memcpy(states, x, sizeof x);
        reader.at = at;
        return done * kLanes + static_cast<size_t>(j);
      }
      // Without a branch: whether a word is needed is as good as random.
      const uint32_t e = entries[row << 8 | value];
      const uint32_t y = (e & 0xFFFF) * (x[j] >> precision) + slot - (e >> 16);
      const uint32_t needy = 0u - static_cast<uint32_t>(y < kLower);
      const uint32_t refilled = y << 16 | load_word(at);
      x[j] = y ^ ((y ^ refilled) & needy);
      at += 2 & needy;
      symbols[j] = static_cast<int16_t>(base + static_cast<int>(value));
    }
  }
  std::memcpy(states, x, sizeof x);
  reader.at = at;
  return done * kLanes;
}

template <int kLanes>
size_t encode_scalar(const Prepared& tables, uint32_t* states, int, uint16_t*& out,
                     const int16_t* symbols, const uint8_t* index, size_t steps) {
  const int precision = tables.precision;
  const uint32_t* entries = tables.entries.data();
  const uint32_t* reciprocals = tables.reciprocals.data();
  const int base = tables.base;
  uint16_t* to = out;
  uint32_t x[kLanes];
  std::memcpy(x, states, sizeof x);
  size_t done = 0;
  for (; done < steps; ++done) {
    symbols -= kLanes;
    index -= kLanes;
    for (int j = kLanes - 1; j >= 0; --j) {
      const uint32_t column = std::min<uint32_t>(static_cast<uint32_t>(symbols[j] - base), 255);
      const uint32_t key = static_cast<uint32_t>(index[j]) << 8 | column;
      const uint32_t e = entries[key];
      if (e == 0) {
        std::memcpy(states, x, sizeof x);
        out = to;
        return done * kLanes + static_cast<size_t>(kLanes - 1 - j);
      }
      x[j] = encode_step(x[j], to, e & 0xFFFF, e >> 16, reciprocals[key], precision);
    }
  }
  std::memcpy(states, x, sizeof x);
  out = to;
  return done * kLanes;
}

// Symbols of coded rows only.
Status decode_coded(const Prepared& tables, Isa isa, Decoding& state, const uint8_t* words,
                    size_t bytes, const uint8_t* index, size_t n, int16_t* symbols) {
  if (n == 0) return Status::kOk;
  if (state.lanes == 0) return Status::kEmpty;
  const size_t lanes = state.lanes;
  Reader reader{words + state.at, words + bytes, words + bytes};
  // The last words are read from a copy with zeros behind, so that the kernels may read on.
  uint8_t tail[6 * 2 * kMaxLanes] = {};
  DecodeSteps kernel = decode_steps_for(isa, static_cast<int>(lanes));
  CarefulDecoder careful(tables, state.states, reader);
  Status status = Status::kOk;
  size_t i = 0;
  while (i < n && status == Status::kOk) {
    if (tables.narrow && state.lane == 0 && n - i >= lanes) {
      if (reader.limit == words + bytes && reader.readable_words() < kMaxLanes) {
        size_t left = static_cast<size_t>(reader.end - reader.at);
        if (left) std::memcpy(tail, reader.at, left);
        reader = {tail, tail + left, tail + sizeof tail};
      }
      const size_t done = kernel(tables, state.states, static_cast<int>(lanes), reader, index + i,
                                 (n - i) / lanes, symbols + i);
      i += done;
      state.lane = static_cast<uint32_t>(done & (lanes - 1));
      if (reader.at > reader.end) return Status::kTooShort;
      // Out of words, not at an escape: go on in the copy.
      const bool dry = reader.readable_words() < kMaxLanes;
      if (state.lane == 0 && reader.limit == words + bytes && dry) continue;
    }
    size_t some = std::min(n - i, lanes - state.lane);
    status = careful.run(static_cast<int>(state.lane), static_cast<int>(lanes), index + i, some,
                         symbols + i);
    state.lane = static_cast<uint32_t>((state.lane + some) & (lanes - 1));
    i += some;
  }
  state.at = bytes - static_cast<size_t>(reader.end - reader.at);
  return status;
}

}  // namespace

DecodeSteps decode_steps_scalar(int lanes) {
  switch (lanes) {
    case 1: return decode_scalar<1>;
    case 2: return decode_scalar<2>;
    case 4: return decode_scalar<4>;
    case 8: return decode_scalar<8>;
    case 16: return decode_scalar<16>;
    default: return decode_scalar<32>;
  }
}

EncodeSteps encode_steps_scalar(int lanes) {
  switch (lanes) {
    case 1: return encode_scalar<1>;
    case 2: return encode_scalar<2>;
    case 4: return encode_scalar<4>;
    case 8: return encode_scalar<8>;
    case 16: return encode_scalar<16>;
    default: return encode_scalar<32>;
  }
}

Status decode(Prepared& tables, Isa isa, Decoding& state, const uint8_t* words, size_t bytes,
              const uint8_t* index, size_t n, int16_t* symbols) try {
  const int named = rows_named(index, n);
  if (named > tables.rows) return Status::kBadIndex;
  if (tables.narrow) {
    // Few lanes mean a short stream, which would not pay for the large table.
    const bool slots = state.lanes == kMaxLanes && isa >= Isa::kAvx2;
    tables.fill(named, slots);
  }
  if (tables.uncoded.empty()) {
    return decode_coded(tables, isa, state, words, bytes, index, n, symbols);
  }
  std::unique_ptr<uint8_t[]> rows(new uint8_t[n + kCloseSlack]);
  bool lost = false;
  const size_t kept = close_up(tables, isa, index, nullptr, n, rows.get(), nullptr, lost);
  Status status = decode_coded(tables, isa, state, words, bytes, rows.get(), kept, symbols);
  if (status == Status::kOk) spread(tables, isa, index, n, kept, symbols);
  return status;
} catch (const std::bad_alloc&) {
  return Status::kNoMemory;
}

namespace {

// Encodes one symbol with every case; at most four words.
uint32_t encode_careful(const Prepared& tables, uint32_t x, uint16_t*& out, int32_t value,
                        int row) {
  const int32_t length = tables.length[row], low = tables.offset[row], high = low + length - 2;
  int32_t entry = value - low;
  if (entry < 0 || entry > length - 2) {
    entry = length - 1;
    uint32_t e = static_cast<uint32_t>(value > high ? 2 * (value - high - 1)
                                                    : 2 * (low - 1 - value) + 1);
    int nb = e ? 32 - __builtin_clz(e) : 0;
    if (nb > 17) x = encode_raw(x, out, e >> 16 & ((1u << (nb - 17)) - 1), nb - 17);
    if (nb > 1) {
      int bits = std::min(16, nb - 1);
      x = encode_raw(x, out, e & ((1u << bits) - 1), bits);
    }
    x = encode_raw(x, out, static_cast<uint32_t>(nb), 5);
  }
  const uint32_t at = tables.start[row] + static_cast<uint32_t>(entry);
  const uint32_t freq = tables.freq[at];
  return encode_step(x, out, freq, tables.cum[at], reciprocal(freq), tables.precision);
}

int choose_lanes(const Prepared& tables, const int16_t* symbols, const uint8_t* index, size_t n) {
  const size_t stride = 1 + n / kCostSamples;
  const int64_t* log = log2_table(tables.precision);
  int64_t cost = 0, samples = 0;
  for (size_t i = 0; i < n; i += stride, ++samples) {
    const int row = index[i];
    if (!tables.coded[row]) continue;
    const int32_t low = tables.offset[row], values = tables.length[row] - 1;
    int32_t entry = symbols[i] - low;
    if (entry < 0 || entry >= values) {
      uint32_t e = static_cast<uint32_t>(entry >= values ? 2 * (entry - values) : -2 * entry - 1);
      cost += int64_t{5 + (e ? 31 - __builtin_clz(e) : 0)} << 16;
      entry = values;
    }
    cost += (int64_t{tables.precision} << 16) -
            (log[tables.freq[tables.start[row] + static_cast<uint32_t>(entry)]] >> 12);
  }
  const int64_t mean = cost / std::max<int64_t>(1, samples);
  const int64_t bytes = (mean * static_cast<int64_t>(n)) >> 19;
  int lanes = 1;
  while (lanes < kMaxLanes && int64_t{2} * lanes * kBytesPerLane <= bytes) lanes *= 2;
  return lanes;
}

void encode_coded(const Prepared& tables, Isa isa, const int16_t* symbols, const uint8_t* index,
                  size_t n, Encoded& to) {
  const size_t lanes = static_cast<size_t>(to.lanes);
  EncodeSteps kernel = encode_steps_for(isa, to.lanes, tables.precision);
  constexpr size_t kBlock = 4096;
  size_t i = n;
  while (i > 0) {
    // Blocks end on whole steps; a symbol makes at most four words.
    const size_t floor = i > kBlock ? (i - 1) / kBlock * kBlock : 0;
    const size_t needed = to.count + 4 * (i - floor) + kOutSlack;
    if (to.words.size() < needed) to.words.resize(std::max(needed, 2 * to.words.size()));
    uint16_t* out = to.words.data() + to.count;
    while (i > floor) {
      if (tables.narrow && i % lanes == 0 && i - floor >= lanes) {
        i -= kernel(tables, to.states, to.lanes, out, symbols + i, index + i,
                    (i - floor) / lanes);
      }
      size_t some = i == floor ? 0 : (i - 1) % lanes + 1;
      for (some = std::min(some, i - floor); some > 0; --some) {
        --i;
        uint32_t& x = to.states[i % lanes];
        x = encode_careful(tables, x, out, symbols[i], index[i]);
      }
    }
    to.count = static_cast<size_t>(out - to.words.data());
  }
}

}  // namespace

void reverse_words(const uint16_t* words, size_t count, void* to) {
  uint8_t* at = static_cast<uint8_t*>(to);
  for (size_t i = 0; i < count; ++i) std::memcpy(at + 2 * i, words + (count - 1 - i), 2);
}

Status encode(const Prepared& tables, Isa isa, const int16_t* symbols, const uint8_t* index,
              size_t n, int lanes, Encoded& to) try {
  if (rows_named(index, n) > tables.rows) return Status::kBadIndex;
  to.lanes = lanes ? lanes : choose_lanes(tables, symbols, index, n);
  std::fill(to.states, to.states + kMaxLanes, kLower);
  std::unique_ptr<int16_t[]> values;
  std::unique_ptr<uint8_t[]> rows;
  if (!tables.uncoded.empty()) {
    values.reset(new int16_t[n + kCloseSlack]);
    rows.reset(new uint8_t[n + kCloseSlack]);
    bool lost = false;
    n = close_up(tables, isa, index, symbols, n, rows.get(), values.get(), lost);
    if (lost) return Status::kUncodedSymbol;
    symbols = values.get();
    index = rows.get();
  }
  if (n == 0) to.lanes = 0;
  if (n) encode_coded(tables, isa, symbols, index, n, to);
  return Status::kOk;
} catch (const std::bad_alloc&) {
  return Status::kNoMemory;
}

}  // namespace latentpack
