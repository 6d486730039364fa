// The decoder of rans.cu: a block finds what is coded, its first warp runs the chain.
#pragma once

#include "rans_streams.cuh"

namespace {

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

}  // namespace
