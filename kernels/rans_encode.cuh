// The encoder of rans.cu: a block closes up what is coded, its first warp runs the chain.
#pragma once

#include "rans_streams.cuh"

namespace {

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

}  // namespace
