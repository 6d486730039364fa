// The tables of segments (planes_segments_ref.py): a window from a sample, counts, frequencies.
// planes_cuda.py describes the launches.

#include "planes_split.cuh"
#include "warp_rans.cuh"

constexpr u32 kPeriod = 4096, kTaken = 64, kCopies = 8;

// The chunks of a segment.
struct Segment {
  u64 number, first, last;
  __device__ Segment(const Tensor& tensor, u64 number) : number(number) {
    const u64 chunks = tensor.last_chunk, count = tensor.table_count;
    first = (number * chunks + count - 1) / count;
    last = ((number + 1) * chunks + count - 1) / count;
  }
};

// A block for each segment: clears what the launches after it add to, and finds the window.
extern "C" __global__ void __launch_bounds__(256)
    planes_prepare(const Tensors tensors, const int width, u32* counts, u64* status, u32* tickets,
                   u32* tops) {
  __shared__ u32 sample[256];
  __shared__ u64 best;
  const Tensor tensor = tensor_of<&Tensor::first_segment>(tensors, blockIdx.x);
  const Segment segment(tensor, blockIdx.x - tensor.first_segment);
  counts[256 * u64{blockIdx.x} + threadIdx.x] = 0;
  for (u64 c = segment.first + threadIdx.x; c < segment.last; c += blockDim.x)
    status[tensor.first_status + c] = 0;
  if (blockIdx.x == 0 && threadIdx.x == 0) *tickets = 0;
  if (threadIdx.x == 0 && segment.number == 0) *tensor.error = ~u64{0};
  if (width == 0) return;  // no exponents
  sample[threadIdx.x] = 0;
  if (threadIdx.x == 0) best = 0;
  __syncthreads();
  const u64 start = segment.first << tensor.chunk_log2;
  const u64 end = min(tensor.n, segment.last << tensor.chunk_log2);
  const u8* upper = tensor.elements + width - 2;  // chunks begin at multiples of the period
  for (u64 i = threadIdx.x; start + i / kTaken * kPeriod < end; i += blockDim.x) {
    const u64 at = start + i / kTaken * kPeriod + i % kTaken;
    if (at >= end) continue;
    const u32 exponent = *reinterpret_cast<const u16*>(upper + at * width) >> 7 & 255;
    if (exponent) atomicAdd(&sample[exponent], 1u);
  }
  __syncthreads();
  u64 inside = 0;
  for (u32 e = threadIdx.x < 14 ? 0 : threadIdx.x - 14; e <= threadIdx.x; ++e) inside += sample[e];
  atomicMax(&best, inside << 8 | (255 - threadIdx.x));  // of equals the lowest
  __syncthreads();
  if (threadIdx.x == 0) tops[blockIdx.x] = 255 - (best & 255);
}

// Blocks (segment, piece): counts the symbols of plane 0.
template <int kLayout, int kWidth>
__device__ __forceinline__ void count_piece(const Tensors& tensors, const u32* tops, u32* counts) {
  using S = Split<kLayout, kWidth>;
  __shared__ u32 copies[kCopies][256];
  for (u32 k = threadIdx.x; k < kCopies * 256; k += blockDim.x) copies[0][k] = 0;
  __syncthreads();
  const Tensor tensor = tensor_of<&Tensor::first_segment>(tensors, blockIdx.x);
  const Segment segment(tensor, blockIdx.x - tensor.first_segment);
  const u64 start = segment.first << tensor.chunk_log2;
  const u64 bytes = (min(tensor.n, segment.last << tensor.chunk_log2) - start) * kWidth;
  const u8* in = tensor.elements + start * kWidth;
  const Distances window(kLayout == kFloat ? tops[blockIdx.x] : 0);
  u32* own = copies[threadIdx.x / 32 % kCopies];
  // Only the tensor's last unit may be partial, and no chunk but the last is odd.
  const u64 step = u64{16} * blockDim.x * gridDim.y;
#pragma unroll 2
  for (u64 at = u64{16} * (blockIdx.y * blockDim.x + threadIdx.x); at < bytes; at += step) {
    u32 words[4];
    const u32 there = static_cast<u32>(min(u64{16}, bytes - at));
    load_unit(in + at, there, words);
    const S unit(words, there / kWidth, window);
    const u32 elements = there / kWidth;
    const u32 symbols = kLayout == kBytePlanes ? elements : (elements + 1) / 2;
#pragma unroll
    for (u32 k = 0; k < S::symbols; ++k)
      if (k < symbols) atomicAdd(&own[unit.first[k / 4] >> 8 * (k & 3) & 255], 1u);
  }
  __syncthreads();
  for (u32 s = threadIdx.x; s < 256; s += blockDim.x) {
    u32 sum = 0;
#pragma unroll
    for (u32 k = 0; k < kCopies; ++k) sum += copies[k][s];
    if (sum) atomicAdd(&counts[256 * u64{blockIdx.x} + s], sum);
  }
}

#define KERNEL(name, layout, width)                                                     \
  extern "C" __global__ void __launch_bounds__(256)                                     \
      planes_count_##name(const Tensors tensors, const u32* tops, u32* counts) {        \
    count_piece<layout, width>(tensors, tops, counts);                                  \
  }
LATENTPACK_SHAPES(KERNEL)
#undef KERNEL

// The largest key and its symbol, the lowest of equals.
struct Best {
  i64 key;
  u32 symbol;
  __device__ void meet(i64 k, u32 s) {
    if (k > key || (k == key && s < symbol)) key = k, symbol = s;
  }
  __device__ void of_warp() {
#pragma unroll
    for (u32 step = 16; step; step /= 2) {
      const i64 k = __shfl_xor_sync(kWarp, key, step);
      meet(k, __shfl_xor_sync(kWarp, symbol, step));
    }
  }
};

// Frequencies that a warp finds for counts, eight symbols a lane: rans_ref.normalise.
struct Normaliser {
  static constexpr i64 kNever = i64{1} << 63;
  const u32* log;
  u32 count[8], freq[8];
  i64 gain[8], loss[8];  // the loss negative, so that the largest is wanted of both

  __device__ void weigh(u32 j) {
    const u32 f = freq[j];
    const u64 c = count[j];
    gain[j] = c ? static_cast<i64>(c * (log[f + 1] - log[f])) : -1;
    loss[j] = f > 1 ? -static_cast<i64>(c * (log[f] - log[f - 1])) : kNever;
  }
  __device__ Best best_gain() const { return best(gain); }
  __device__ Best least_loss() const { return best(loss); }
  __device__ Best best(const i64 (&keys)[8]) const {
    Best b = {keys[0], 8 * lane_id()};
#pragma unroll
    for (u32 j = 1; j < 8; ++j) b.meet(keys[j], 8 * lane_id() + j);
    b.of_warp();
    return b;
  }
  __device__ void change(u32 symbol, u32 by) {
#pragma unroll
    for (u32 j = 0; j < 8; ++j)
      if (symbol == 8 * lane_id() + j) {
        freq[j] += by;
        weigh(j);
      }
  }
  __device__ void run() {
    u32 present = 0, sum = 0;
    u64 weight = 0;
#pragma unroll
    for (u32 j = 0; j < 8; ++j) present += count[j] != 0;
    if (__reduce_add_sync(kWarp, present) == 1) {  // the lowest absent symbol keeps it company
      if (lane_id() == 0) {
        if (count[0]) count[1] = 1;
        else count[0] = 1;
      }
    }
#pragma unroll
    for (u32 j = 0; j < 8; ++j) weight += count[j];
#pragma unroll
    for (u32 step = 16; step; step /= 2) weight += __shfl_xor_sync(kWarp, weight, step);
#pragma unroll
    for (u32 j = 0; j < 8; ++j) {
      const u64 f = (2 * u64{count[j]} * rans::kSlots + weight) / (2 * weight);
      freq[j] = count[j] ? static_cast<u32>(max(u64{1}, f)) : 0;
      sum += freq[j];
      weigh(j);
    }
    for (sum = __reduce_add_sync(kWarp, sum); sum < rans::kSlots; ++sum) change(best_gain().symbol, 1);
    for (; sum > rans::kSlots; --sum) change(least_loss().symbol, ~0u);
    for (;;) {
      const Best more = best_gain(), less = least_loss();
      if (more.symbol == less.symbol || less.key == kNever || more.key <= -less.key) return;
      change(more.symbol, 1);
      change(less.symbol, ~0u);
    }
  }
};

// A warp for each segment: its table, and the same as the encoder looks it up.
extern "C" __global__ void __launch_bounds__(32)
    planes_normalise(const Tensors tensors, const u32* counts, const u32* log, rans::Entry* entries) {
  const Tensor tensor = tensor_of<&Tensor::first_segment>(tensors, blockIdx.x);
  const u32 lane = lane_id();
  Normaliser table;
  table.log = log;
#pragma unroll
  for (u32 j = 0; j < 8; ++j) table.count[j] = counts[256 * u64{blockIdx.x} + 8 * lane + j];
  table.run();
  u32 own = 0;
#pragma unroll
  for (u32 j = 0; j < 8; ++j) own += table.freq[j];
  u32 end = own;
#pragma unroll
  for (u32 step = 1; step < 32; step *= 2) {
    const u32 below = __shfl_up_sync(kWarp, end, step);
    if (lane >= step) end += below;
  }
  u32 cum = end - own;
  u16* freqs = tensor.tables + 256 * (blockIdx.x - tensor.first_segment) + 8 * lane;
#pragma unroll
  for (u32 j = 0; j < 8; ++j) {
    freqs[j] = static_cast<u16>(table.freq[j]);
    entries[256 * u64{blockIdx.x} + 8 * lane + j] = {table.freq[j] | cum << 16,
                                                     rans::reciprocal(table.freq[j])};
    cum += table.freq[j];
  }
}
