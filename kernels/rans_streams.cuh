// What the encoder and the decoder of rans.cu share: `state`, rows, the places of what is kept.
#pragma once

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

}  // namespace
