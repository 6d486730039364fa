// rANS over indexed tables on a CUDA device: a block for each stream. rans_ref.py defines the
// stream, rans_device.py the arguments, `state` and the numbers of what is wrong (those of rans.h).
//
// A stream is a chain: step after step its lanes wait for a table and for each other's words. So a
// whole block does what does not wait (quantisation, rows, closing up of the coded symbols, the
// choice of lanes), and its first warp then runs the chain with everything fetched one step ahead.
#include "rans_decode.cuh"
#include "rans_encode.cuh"

namespace {

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
