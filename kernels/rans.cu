// rANS over indexed tables on a CUDA device: a block for each stream. rans_ref.py defines the
// stream, rans_device.py the arguments, `state` and the numbers of what is wrong (those of rans.h).
//
// A stream is a chain: step after step its lanes wait for a table and for each other's words. So a
// whole block does what does not wait (quantisation, rows, closing up of the coded symbols, the
// choice of lanes), and its first warp then runs the chain with everything fetched one step ahead.
#include "warp_rans.cuh"

namespace {

using rans::kLower;

constexpr u32 kThreads = 512, kWarps = kThreads / 32, kEach = 8, kBlock = kThreads * kEach;
constexpr u32 kState = 36;  // i64 of a stream: 32 states, then these
constexpr u32 kLanes = 32, kNext = 33, kWords = 34, kStatus = 35;
constexpr u32 kBytesPerLane = 1200, kCostSamples = 1 << 13, kMaxEscapeBits = 18;
constexpr i64 kBadIndex = 1, kUncodedSymbol = 2, kEmpty = 3, kTooShort = 4, kEscapeBits = 5,
              kEscapeValue = 6, kNotFinite = 8, kBadHead = 9;

// A row: x its offset, y its length with the escape, z its first entry.
using Row = int4;

__device__ __forceinline__ bool is_escape(Row row, i32 value) {
  return static_cast<u32>(value - row.x) >= static_cast<u32>(row.y - 1);
}
__device__ __forceinline__ u32 entry_of(Row row, i32 value) {
  return static_cast<u32>(row.z + (is_escape(row, value) ? row.y - 1 : value - row.x));
}
__device__ __forceinline__ u32 escape_of(Row row, i32 value) {
  const i32 high = row.x + row.y - 2;
  return static_cast<u32>(value > high ? 2 * (value - high - 1) : 2 * (row.x - 1 - value) + 1);
}
__device__ __forceinline__ u32 bits_of(u32 e) { return 32 - __clz(static_cast<i32>(e)); }

// The number of boundaries below a scale.
__device__ __forceinline__ u32 row_of(float scale, const float* boundaries, u32 count) {
  u32 low = 0, high = count;
  while (low < high) {
    const u32 middle = (low + high) / 2;
    if (boundaries[middle] < scale) low = middle + 1;
    else high = middle;
  }
  return low;
}

// How many of the block's threads before this one's warp, and in all, have something to keep.
struct Places {
  u32 before, all;
};
__device__ __forceinline__ Places places_of_warps(u32 kept, u32* totals) {
  if (lane_id() == 0) totals[threadIdx.x / 32] = kept;
  __syncthreads();
  Places places = {0, 0};
  for (u32 w = 0; w < kWarps; ++w) {
    if (w < threadIdx.x / 32) places.before += totals[w];
    places.all += totals[w];
  }
  __syncthreads();
  return places;
}

__device__ __forceinline__ u64 sum_of_block(u64 value, u64* totals) {
  for (u32 step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kWarp, value, step);
  if (lane_id() == 0) totals[threadIdx.x / 32] = value;
  __syncthreads();
  u64 sum = 0;
  for (u32 w = 0; w < kWarps; ++w) sum += totals[w];
  __syncthreads();
  return sum;
}

// What is coded: symbols and index, or latents with index or scales. Null where it is the other.
struct Source {
  const i16* symbols;
  const u8* index;
  const float *y, *means, *scales, *boundaries;
  float* y_hat;
  u32 boundary_count;
};

struct Symbol {
  i32 value;
  u32 row;
  u32 status;
};

// Symbol i of all; y_hat is written on the way.
__device__ __forceinline__ Symbol read(const Source& from, const Row* rows, u32 row_count, i64 i) {
  Symbol symbol = {0, 0, 0};
  if (from.scales) {
    const float scale = from.scales[i];
    if (scale != scale) symbol.status = kNotFinite;
    symbol.row = row_of(scale, from.boundaries, from.boundary_count);
  } else {
    symbol.row = from.index[i];
  }
  if (symbol.row >= row_count) {
    symbol.row = 0;
    symbol.status = kBadIndex;
  }
  const bool coded = rows[symbol.row].y > 0;
  if (from.symbols) {
    symbol.value = from.symbols[i];
    if (!coded && symbol.value) symbol.status = max(symbol.status, static_cast<u32>(kUncodedSymbol));
    return symbol;
  }
  const float mean = from.means ? from.means[i] : 0.0f;
  const float residual = from.y[i] - mean;
  if (residual != residual) symbol.status = kNotFinite;
  const float clamped = fminf(fmaxf(residual, -32768.0f), 32767.0f);  // a NaN is -32768 here
  symbol.value = coded ? __float2int_rn(clamped) : 0;
  if (from.y_hat) from.y_hat[i] = static_cast<float>(symbol.value) + mean;
  return symbol;
}

// Writes the stream's coded symbols, closed up, to pairs: value << 8 | row. Returns their number,
// and through the references what all of them cost in samples, and what is wrong.
__device__ u32 close_up(const Source& from, const Row* rows, u32 row_count, const u32* costs,
                        i64 first, u32 n, i32* pairs, u64& cost, u64& status) {
  __shared__ u32 totals[kWarps];
  const u32 stride = 1 + n / kCostSamples;
  const u32 lane = lane_id(), warp = threadIdx.x / 32;
  u32 done = 0;
  cost = status = 0;
  for (u32 base = 0; base < n; base += kBlock) {
    i32 pair[kEach];
    u32 keep[kEach];
    u32 kept = 0;
#pragma unroll
    for (u32 k = 0; k < kEach; ++k) {
      const u32 i = base + (warp * kEach + k) * 32 + lane;
      Symbol symbol = {0, 0, 0};
      Row row = {0, 0, 0, 0};
      if (i < n) {
        symbol = read(from, rows, row_count, first + i);
        row = rows[symbol.row];
      }
      status |= symbol.status ? 1ull << symbol.status : 0;
      if (row.y > 0 && i % stride == 0) {
        cost += costs[entry_of(row, symbol.value)];
        if (is_escape(row, symbol.value)) {
          cost += u64{4 + max(1u, bits_of(escape_of(row, symbol.value)))} << 16;
        }
      }
      pair[k] = symbol.value * 256 + static_cast<i32>(symbol.row);
      keep[k] = __ballot_sync(kWarp, row.y > 0);
      kept += __popc(keep[k]);
    }
    const Places places = places_of_warps(kept, totals);
    u32 to = done + places.before;
#pragma unroll
    for (u32 k = 0; k < kEach; ++k) {
      if (keep[k] >> lane & 1) pairs[to + __popc(keep[k] & lanes_below(lane))] = pair[k];
      to += __popc(keep[k]);
    }
    done += places.all;
  }
  return done;
}

__device__ __forceinline__ u32 lanes_for(u64 cost, u32 n) {
  const u32 samples = n ? (n - 1) / (1 + n / kCostSamples) + 1 : 1;
  const u64 bytes = cost / samples * n >> 19;
  u32 lanes = 1;
  while (lanes < 32 && u64{2} * lanes * kBytesPerLane <= bytes) lanes *= 2;
  return lanes;
}

// A symbol with what the tables say of it, fetched before it is its turn.
struct Fetched {
  i32 pair;
  Row row;
  u32 entry, reciprocal;
};

struct EncodeTables {
  const Row* rows;
  const u32 *entries, *reciprocals;
  u32 precision;
  __device__ __forceinline__ Fetched fetch(i32 pair, bool active) const {
    Fetched f = {pair, {0, 0, 0, 0}, 1, 0xFFFFFFFFu};
    if (!active) return f;
    f.row = rows[pair & 255];
    const u32 at = entry_of(f.row, pair >> 8);
    f.entry = entries[at];
    f.reciprocal = reciprocals[at];
    return f;
  }
};

// The words of a step: up to four of a lane, the last made is the first read.
struct Made {
  u32 words[4];
  u32 votes[4];
};
__device__ __forceinline__ void make_room(u32& x, bool full, u32 stage, Made& made) {
  made.votes[stage] = __ballot_sync(kWarp, full);
  made.words[stage] = x;
  if (full) x >>= 16;
}
__device__ __forceinline__ void put_raw(u32& x, bool active, u32 value, u32 bits, u32 stage,
                                        Made& made) {
  make_room(x, active && bits && x >> ((32 - bits) & 31), stage, made);
  if (active) x = x << bits | (value & ((1u << bits) - 1));
}

// Codes pairs[count] backwards; the words grow down from `end`. Returns how many they are.
__device__ u32 encode_chain(const EncodeTables& tables, const i32* pairs, u32 count, u32 lanes,
                            u16* end, u32& x) {
  const u32 lane = lane_id(), below = lanes_below(lane);
  const u32 steps = (count + lanes - 1) / lanes;
  u32 used = 0;
  x = kLower;
  auto active_in = [&](u32 step) { return lane < lanes && u64{step} * lanes + lane < count; };
  auto pair_of = [&](u32 step) { return active_in(step) ? pairs[step * lanes + lane] : 0; };
  Fetched next = tables.fetch(pair_of(steps - 1), active_in(steps - 1));
  i32 after = steps > 1 ? pair_of(steps - 2) : 0;
  for (u32 step = steps; step-- > 0;) {
    const Fetched now = next;
    const bool active = active_in(step);
    if (step > 0) next = tables.fetch(after, active_in(step - 1));
    after = step > 1 ? pair_of(step - 2) : 0;
    const i32 value = now.pair >> 8;
    const bool escaped = active && is_escape(now.row, value);
    Made made;
    made.votes[0] = made.votes[1] = made.votes[2] = 0;
    if (__any_sync(kWarp, escaped)) {
      const u32 e = escaped ? escape_of(now.row, value) : 0;
      const u32 nb = bits_of(e);
      put_raw(x, escaped, e >> 16, nb > 17 ? nb - 17 : 0, 0, made);
      put_raw(x, escaped, e, nb > 1 ? min(16u, nb - 1) : 0, 1, made);
      put_raw(x, escaped, nb, 5, 2, made);
    }
    const u32 freq = now.entry & 0xFFFF;
    make_room(x, active && x >> (32 - tables.precision) >= freq, 3, made);
    u32 total = 0, mine = 0;
#pragma unroll
    for (u32 k = 0; k < 4; ++k) {
      total += __popc(made.votes[k]);
      mine += __popc(made.votes[k] & below);
    }
    used += total;
    u16* to = end - used + mine;
#pragma unroll
    for (u32 k = 4; k-- > 0;) {
      if (made.votes[k] >> lane & 1) *to++ = static_cast<u16>(made.words[k]);
    }
    if (active) {
      u32 q = __umulhi(x, now.reciprocal);
      q += x - q * freq >= freq;  // the rounded reciprocal makes it at most one too small
      x += (now.entry >> 16) + q * ((1u << tables.precision) - freq);
    }
  }
  return used;
}

// A stream's words, read in lane order.
struct Chain {
  rans::Words words;
  u32 end;     // the number of the first word that is not the stream's
  u32 status;  // the same in all lanes

  // Refills the states of `mask` that need it.
  __device__ __forceinline__ void renormalise(u32& x, u32 mask) {
    const u32 lane = lane_id();
    const bool low = (mask >> lane & 1) && x < kLower;
    const u32 votes = __ballot_sync(kWarp, low);
    if (static_cast<u32>(__popc(votes)) > end - words.at) {
      status = kTooShort;
      return;
    }
    if (low) {
      const u32 place = words.at + __popc(votes & lanes_below(lane));
      x = x << 16 | words.ring[place & (rans::kRing - 1)];
    }
    words.at += __popc(votes);
  }
  // The raw bits of one lane; the others get something.
  __device__ __forceinline__ u32 raw(u32& x, u32 bits, u32 who) {
    const u32 value = x & ((1u << bits) - 1);
    if (lane_id() == who) x >>= bits;
    renormalise(x, 1u << who);
    return __shfl_sync(kWarp, value, who);
  }
  // The value behind an escape of lane `who`, whose row that lane gives.
  __device__ i32 escaped(u32& x, u32 who, Row row) {
    const u32 nb = raw(x, 5, who);
    if (status == 0 && nb > kMaxEscapeBits) status = kEscapeBits;
    if (status) return 0;
    u32 e = nb ? 1u << (nb - 1) : 0;
    if (nb > 1) e += raw(x, min(16u, nb - 1), who);
    if (nb > 17) e += raw(x, nb - 17, who) << 16;
    const i32 high = row.x + row.y - 2, half = static_cast<i32>(e / 2);
    const i32 value = __shfl_sync(kWarp, e & 1 ? row.x - 1 - half : high + 1 + half, who);
    if (status == 0 && (value < -32768 || value > 32767)) status = kEscapeValue;
    return value;
  }
};

template <class Slot>
struct DecodeTables {
  const Row* rows;
  const u32* entries;
  const Slot* slots;  // [row << precision | slot], the entry of the row
  u32 precision;
};

// One step: a symbol for each active lane.
template <class Slot>
__device__ __forceinline__ i32 decode_step(const DecodeTables<Slot>& tables, Chain& chain, u32& x,
                                           bool active, u32 row_number, Row row) {
  const u32 slot = x & ((1u << tables.precision) - 1);
  u32 entry = 0;
  if (active) {
    entry = tables.slots[u64{row_number} << tables.precision | slot];
    const u32 freq_cum = tables.entries[row.z + entry];
    x = (freq_cum & 0xFFFF) * (x >> tables.precision) + slot - (freq_cum >> 16);
  }
  i32 value = row.x + static_cast<i32>(entry);
  u32 left = __ballot_sync(kWarp, active);
  u32 escapes = __ballot_sync(kWarp, active && entry + 1 == static_cast<u32>(row.y));
  chain.words.ready();
  while (escapes && chain.status == 0) {  // up to the escape, then its bits
    const u32 who = static_cast<u32>(__ffs(static_cast<i32>(escapes))) - 1;
    const u32 through = lanes_below(who) | 1u << who;
    chain.renormalise(x, left & through);
    if (chain.status == 0) {
      const i32 found = chain.escaped(x, who, row);
      if (lane_id() == who) value = found;
    }
    left &= ~through;
    escapes &= escapes - 1;
  }
  if (chain.status == 0) chain.renormalise(x, left);
  return value;
}

// What a symbol is to be: its place and its row.
struct Wanted {
  i32 place;
  u32 row_number;
  Row row;
};

template <class Slot>
__device__ void decode_chain(const DecodeTables<Slot>& tables, Chain& chain, u32& x, u32 lanes,
                             u32 next, const i32* places, u32 count, const u8* index,
                             const float* means, i16* out, float* y_hat) {
  const u32 lane = lane_id();
  const u32 steps = (next + count + lanes - 1) / lanes;
  auto active_in = [&](u32 step) {
    const u64 k = u64{step} * lanes + lane;
    return step < steps && lane < lanes && k >= next && k < u64{next} + count;
  };
  auto place_of = [&](u32 step) {
    return active_in(step) ? places[u64{step} * lanes + lane - next] : 0;
  };
  auto want = [&](i32 place, bool active) {
    Wanted w = {place, 0, {0, 0, 0, 0}};
    if (active) {
      w.row_number = index[place];
      w.row = tables.rows[w.row_number];
    }
    return w;
  };
  Wanted soon = want(place_of(0), active_in(0));
  i32 after = place_of(1);
  for (u32 step = 0; step < steps && chain.status == 0; ++step) {
    const Wanted now = soon;
    const bool active = active_in(step);
    soon = want(after, active_in(step + 1));
    after = place_of(step + 2);
    const i32 value = decode_step(tables, chain, x, active, now.row_number, now.row);
    if (!active || chain.status) continue;
    if (out) out[now.place] = static_cast<i16>(value);
    if (y_hat) y_hat[now.place] = static_cast<float>(value) + (means ? means[now.place] : 0.0f);
  }
}

// The places of coded symbols, closed up; out and y_hat as if none were coded. Returns how many.
__device__ u32 find_coded(const Row* rows, u32 row_count, const u8* index, u32 n, i32* places,
                          const float* means, i16* out, float* y_hat, bool& bad) {
  __shared__ u32 totals[kWarps];
  const u32 lane = lane_id(), warp = threadIdx.x / 32;
  u32 done = 0;
  bad = false;
  for (u32 base = 0; base < n; base += kBlock) {
    u32 keep[kEach];
    u32 kept = 0;
    const u32 own = base + warp * kEach * 32 + lane;
#pragma unroll
    for (u32 k = 0; k < kEach; ++k) {
      const u32 i = own + 32 * k;
      const u32 row = i < n ? index[i] : 0;
      bad |= row >= row_count;
      keep[k] = __ballot_sync(kWarp, i < n && row < row_count && rows[row].y > 0);
      kept += __popc(keep[k]);
      if (i < n && out) out[i] = 0;
      if (i < n && y_hat) y_hat[i] = means ? means[i] : 0.0f;
    }
    const Places warps = places_of_warps(kept, totals);
    u32 to = done + warps.before;
#pragma unroll
    for (u32 k = 0; k < kEach; ++k) {
      if (keep[k] >> lane & 1) {
        places[to + __popc(keep[k] & lanes_below(lane))] = static_cast<i32>(own + 32 * k);
      }
      to += __popc(keep[k]);
    }
    done += warps.all;
  }
  bad = __syncthreads_or(bad);
  return done;
}

template <class Slot>
__device__ void decode_stream(const DecodeTables<Slot>& tables, u32 row_count, const u8* data,
                              i64 readable, const i64* offsets, const i64* bounds, const u8* index,
                              const float* means, i16* out, float* y_hat, i32* places, i64* state) {
  __shared__ uint4 ring[rans::kRing / 8];
  const i64 first = bounds[blockIdx.x];
  const u32 n = static_cast<u32>(bounds[blockIdx.x + 1] - first);
  index += first;
  places += first;
  if (means) means += first;
  if (out) out += first;
  if (y_hat) y_hat += first;
  bool bad;
  const u32 count =
      find_coded(tables.rows, row_count, index, n, places, means, out, y_hat, bad);
  if (threadIdx.x >= 32) return;
  state += i64{blockIdx.x} * kState;
  const u32 lane = lane_id(), lanes = static_cast<u32>(state[kLanes]);
  const u32 next = static_cast<u32>(state[kNext]);
  const i64 read = state[kWords];
  i64 status = state[kStatus];
  u32 x = static_cast<u32>(state[lane]);
  if (status == 0 && bad) status = kBadIndex;
  if (status == 0 && count && lanes == 0) status = kEmpty;
  __syncwarp();
  if (status == 0 && count) {
    const i64 start = offsets[blockIdx.x] + 1 + 4 * i64{lanes} + 2 * read;
    Chain chain;
    chain.words.start(data + start, data + readable, reinterpret_cast<u16*>(ring));
    const u32 from = chain.words.at;
    chain.end = from + static_cast<u32>((offsets[blockIdx.x + 1] - start) / 2);
    chain.status = 0;
    decode_chain(tables, chain, x, lanes, next, places, count, index, means, out, y_hat);
    status = chain.status;
    state[lane] = x;
    if (lane == 0) {
      state[kNext] = (u64{next} + count) & (lanes - 1);
      state[kWords] = read + (chain.words.at - from);
    }
  }
  if (lane == 0) state[kStatus] = status;
}

__device__ __forceinline__ i64 size_of(const i64* state) {
  const i64 lanes = state[kLanes];
  return lanes ? 1 + 4 * lanes + 2 * state[kWords] : 0;
}

}  // namespace

// Quantises, chooses rows and lanes, and codes: the words of stream b end at
// words + word_room * bounds[b + 1] + 64 * (b + 1).
extern "C" __global__ void __launch_bounds__(512)
rans_encode(const i16* symbols, const u8* index, const float* y, const float* means,
            const float* scales, const float* boundaries, u32 boundary_count, float* y_hat,
            const i64* bounds, const int4* rows, u32 row_count, const u32* entries,
            const u32* reciprocals, const u32* costs, u32 precision, u32 wanted_lanes, i32* pairs,
            u16* words, u32 word_room, i64* state) {
  __shared__ u64 totals[kWarps];
  const Source from = {symbols, index, y, means, scales, boundaries, y_hat, boundary_count};
  const i64 first = bounds[blockIdx.x], last = bounds[blockIdx.x + 1];
  const u32 n = static_cast<u32>(last - first);
  u64 cost, wrong;
  pairs += first;
  const u32 count = close_up(from, rows, row_count, costs, first, n, pairs, cost, wrong);
  cost = sum_of_block(cost, totals);
  u32 status = 0;
  if (__syncthreads_or((wrong >> kUncodedSymbol & 1) != 0)) status = kUncodedSymbol;
  if (__syncthreads_or((wrong >> kNotFinite & 1) != 0)) status = kNotFinite;
  if (__syncthreads_or((wrong >> kBadIndex & 1) != 0)) status = kBadIndex;
  if (threadIdx.x >= 32) return;
  const u32 lane = lane_id();
  const u32 lanes = status || !count ? 0 : wanted_lanes ? wanted_lanes : lanes_for(cost, n);
  u32 x = kLower, used = 0;
  if (lanes) {
    const EncodeTables tables = {rows, entries, reciprocals, precision};
    u16* end = words + last * word_room + 64 * (i64{blockIdx.x} + 1);
    used = encode_chain(tables, pairs, count, lanes, end, x);
  }
  state += i64{blockIdx.x} * kState;
  state[lane] = x;
  if (lane == 0) {
    state[kLanes] = lanes;
    state[kNext] = count;
    state[kWords] = used;
    state[kStatus] = status;
  }
}

// The streams to their places, one behind the other. Blocks (stream, piece) of 256 threads.
extern "C" __global__ void __launch_bounds__(256)
rans_pack(const i64* bounds, const i64* state, const u16* words, u32 word_room, u32 streams,
          u8* data, i64* offsets) {
  __shared__ u64 totals[8];
  u64 before = 0;
  for (u32 b = threadIdx.x; b < blockIdx.x; b += 256) before += size_of(state + i64{b} * kState);
  for (u32 step = 16; step > 0; step /= 2) before += __shfl_xor_sync(kWarp, before, step);
  if (lane_id() == 0) totals[threadIdx.x / 32] = before;
  __syncthreads();
  i64 start = 0;
  for (u32 w = 0; w < 8; ++w) start += totals[w];
  const i64* own = state + i64{blockIdx.x} * kState;
  const i64 size = size_of(own), head = 1 + 4 * own[kLanes];
  const u8* from = reinterpret_cast<const u8*>(words + bounds[blockIdx.x + 1] * word_room +
                                               64 * (i64{blockIdx.x} + 1) - own[kWords]);
  for (i64 i = threadIdx.x + i64{blockIdx.y} * 256; i < size; i += i64{gridDim.y} * 256) {
    u32 byte = 31 - __clz(static_cast<i32>(own[kLanes]));
    if (i >= head) byte = from[i - head];
    else if (i > 0) byte = static_cast<u32>(own[(i - 1) / 4]) >> (i - 1) % 4 * 8;
    data[start + i] = static_cast<u8>(byte);
  }
  if (blockIdx.y == 0 && threadIdx.x == 0) {
    offsets[blockIdx.x] = start;
    if (blockIdx.x + 1 == streams) offsets[streams] = start + size;
  }
}

// Reads the heads of streams into states.
extern "C" __global__ void __launch_bounds__(32)
rans_begin(const u8* data, const i64* offsets, i64* state) {
  const u32 lane = lane_id();
  const i64 start = offsets[blockIdx.x], size = offsets[blockIdx.x + 1] - start;
  const u8* head = data + start;
  const u32 log = size > 0 ? head[0] : 0;
  const u32 lanes = size > 0 && log <= 5 ? 1u << log : 0;
  const i64 body = size - 1 - 4 * i64{lanes};
  bool good = size == 0 || (log <= 5 && body >= 0 && body % 2 == 0);
  u32 x = kLower;
  if (good && lane < lanes) {
    const u8* at = head + 1 + 4 * lane;
    x = at[0] | u32{at[1]} << 8 | u32{at[2]} << 16 | u32{at[3]} << 24;
  }
  good = __all_sync(kWarp, good && x >= kLower);
  state += i64{blockIdx.x} * kState;
  state[lane] = x;
  if (lane == 0) {
    state[kLanes] = good ? lanes : 0;
    state[kNext] = state[kWords] = 0;
    state[kStatus] = good ? 0 : kBadHead;
  }
}

// The next symbols of each stream; `readable` bytes of data, a multiple of 16.
extern "C" __global__ void __launch_bounds__(512)
rans_decode_u8(const u8* data, i64 readable, const i64* offsets, const i64* bounds,
               const u8* index, const float* means, const int4* rows, u32 row_count,
               const u32* entries, const u8* slots, u32 precision, i16* out, float* y_hat,
               i32* places, i64* state) {
  const DecodeTables<u8> tables = {rows, entries, slots, precision};
  decode_stream(tables, row_count, data, readable, offsets, bounds, index, means, out, y_hat,
                places, state);
}

extern "C" __global__ void __launch_bounds__(512)
rans_decode_u16(const u8* data, i64 readable, const i64* offsets, const i64* bounds,
               const u8* index, const float* means, const int4* rows, u32 row_count,
               const u32* entries, const u16* slots, u32 precision, i16* out, float* y_hat,
               i32* places, i64* state) {
  const DecodeTables<u16> tables = {rows, entries, slots, precision};
  decode_stream(tables, row_count, data, readable, offsets, bounds, index, means, out, y_hat,
                places, state);
}
