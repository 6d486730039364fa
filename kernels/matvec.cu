// A matrix of bfloat16 that stays packed, times a few vectors: weights are decoded in registers and
// multiplied there; only the coded bytes are read from memory. matvec.py describes the launches.
//
// One warp per chunk. A stream becomes 512 symbols (1024 elements) in shared memory at a time, as in
// planes_decode.cu; units of 8 elements are joined and multiplied with 8 elements of x, which lie in
// the caches. Sums of a row within a chunk go to `partials`, and a second kernel adds those of a row
// in the order of the chunks: no floating-point atomics, the same result every time.
//
// About 5 instructions for an element and a vector besides those that decode it (9).

#include "planes_join.cuh"
#include "warp_rans.cuh"

extern __shared__ uint4 room[];

enum Error : u32 { kFine = 0, kRecord = 2, kStream = 3, kPatches = 4 };

constexpr u32 kGroupElements = 2 * rans::kGroup;
// Words and symbols of a warp, and a bit for each element of a group: it has a patch.
constexpr u32 kWarpBytes = 2 * rans::kRing + rans::kGroup + kGroupElements / 8;

__device__ __forceinline__ float low_float(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_float(u32 pair) { return __uint_as_float(pair & 0xFFFF0000u); }

// The matrix, [rows, columns] in C order, and the vectors, [batch, columns]; both bfloat16.
struct Product {
  const u16* x;
  float* partials;  // [chunks, rows_of_chunk, kBatch]
  u64 columns;
  u32 rows_of_chunk, batch;
};

template <int kBatch>
struct Chunk {
  const Record* record;
  const u8* coded;
  const u8* patches;  // u16 positions, then u8 exponents
  Product product;
  u64 first;  // number of its first element in the matrix
  u32 n, next_patch;
  u8* marks;
  float* sums;  // of the chunk's rows

  __device__ u32 position(u32 k) const { return patches[2 * k] | u32{patches[2 * k + 1]} << 8; }
  __device__ u32 rest(u32 i) const {
    const Plane& plane = record->planes[1];
    if (plane.mode() == kConst) return plane.argument();
    const u32 mode = record->planes[0].mode();
    const u32 before = mode == kRaw ? padded(n) : mode == kWindow ? padded((n + 1) / 2) : 0;
    return coded[before + i];
  }
  // Element i, its exponent known.
  __device__ float element(u32 i, u32 exponent) const {
    const u32 r = rest(i);
    return __uint_as_float((r & 128) << 24 | exponent << 23 | (r & 127) << 16);
  }
  __device__ float vector(u32 b, u64 column) const {
    const u32 row = b < product.batch ? b : 0;
    return __uint_as_float(u32{product.x[row * product.columns + column]} << 16);
  }

  // Adds what all lanes have found for a row.
  __device__ void finish(u64 row, float (&sum)[kBatch]) {
#pragma unroll
    for (u32 b = 0; b < kBatch; ++b) {
      float v = sum[b];
#pragma unroll
      for (u32 step = 16; step; step /= 2) v += __shfl_xor_sync(kWarp, v, step);
      if (lane_id() == 0) sums[(row - first / product.columns) * kBatch + b] += v;
      sum[b] = 0;
    }
  }

  // Marks the elements of a group that have patches; false if these do not ascend below n.
  __device__ bool mark(u32 begin, u32 end) {
    const u32 count = record->planes[0].patches, lane = lane_id();
    reinterpret_cast<u32*>(marks)[lane] = 0;
    __syncwarp();
    bool fine = true;
    for (u32 k = next_patch + lane;; k += 32) {
      const u32 at = k < count ? position(k) : 0xFFFFFFFFu;
      const bool here = at < end;
      fine = fine && (k >= count || (at < n && (k == 0 || position(k - 1) < at) && at >= begin));
      if (here && at >= begin) atomicOr(reinterpret_cast<u32*>(marks) + (at - begin) / 32, 1u << (at - begin) % 32);
      if (!__all_sync(kWarp, here)) break;
    }
    __syncwarp();
    return __all_sync(kWarp, fine);
  }

  // The patched elements of begin .. end - 1 of one row. Patches before were of other rows.
  __device__ void add_patches(u32 end, float (&sum)[kBatch], u64 row) {
    const u32 count = record->planes[0].patches;
    for (;;) {
      const u32 k = next_patch + lane_id();
      const bool here = k < count && position(k) < end;
      if (here) {
        const u32 i = position(k);
        const float w = element(i, patches[2 * count + k]);
        const u64 column = first + i - row * product.columns;
#pragma unroll
        for (u32 b = 0; b < kBatch; ++b) sum[b] += w * vector(b, column);
      }
      const u32 taken = __popc(__ballot_sync(kWarp, here));
      next_patch += taken;
      if (taken < 32) return;
    }
  }

  // Multiplies elements begin .. end - 1 of one row; weight(i) is one of them.
  template <class Weight>
  __device__ void multiply(u32 begin, u32 end, u64 row, float (&sum)[kBatch], Weight weight) {
    for (u32 i = begin + lane_id(); i < end; i += 32) {
      const float w = weight(i);
      const u64 column = first + i - row * product.columns;
#pragma unroll
      for (u32 b = 0; b < kBatch; ++b) sum[b] += w * vector(b, column);
    }
  }

  // Units of 8 elements of a group of pairs; rows end between units.
  __device__ void multiply_pairs(const u8* stage, u32 group, u32 begin, u32 end, u64 row,
                                 const Window& window, float (&sum)[kBatch]) {
    using U = Unit<kFloat, 2, true>;
    const Plane& plane = record->planes[1];
    for (u32 i = begin + 8 * lane_id(); i < end; i += 256) {
      u32 symbols[4], other[3][4], w[4];
      load_bytes<4>(stage + (i - group) / 2, symbols);
      if (plane.mode() == kConst) other[0][0] = other[0][1] = plane.argument() * 0x01010101u;
      else load_bytes<8>(coded + i, other[0]);
      U::join(symbols, other, window, w);
      if (const u32 mark = marks[(i - group) / 8]) {
#pragma unroll
        for (u32 k = 0; k < 4; ++k)
          w[k] &= (mark >> 2 * k & 1 ? 0 : 0xFFFFu) | (mark >> 2 * k & 2 ? 0 : 0xFFFF0000u);
      }
      const u64 column = first + i - row * product.columns;
#pragma unroll
      for (u32 b = 0; b < kBatch; ++b) {
        const u64 at = (b < product.batch ? b : 0) * product.columns + column;
        const uint4 v = __ldg(reinterpret_cast<const uint4*>(product.x + at));
        const u32 xs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (u32 k = 0; k < 4; ++k)
          sum[b] += low_float(w[k]) * low_float(xs[k]) + high_float(w[k]) * high_float(xs[k]);
      }
    }
  }
};

// Cuts begin .. end - 1 of a chunk at the ends of rows.
template <int kBatch, class Take>
__device__ __forceinline__ void by_rows(Chunk<kBatch>& chunk, u32 begin, u32 end, Take take) {
  const u64 columns = chunk.product.columns;
  float sum[kBatch] = {};
  while (begin < end) {
    const u64 row = (chunk.first + begin) / columns;
    const u64 left = (row + 1) * columns - chunk.first;
    const u32 stop = left < end ? static_cast<u32>(left) : end;
    take(begin, stop, row, sum);
    chunk.finish(row, sum);
    begin = stop;
  }
}

// A chunk whose exponents are a stream, of pairs or (where few of them fit a window) of bytes.
template <int kBatch>
__device__ u32 multiply_stream(Chunk<kBatch>& chunk, const u8* readable, const u32* slots, u16* ring,
                               u8* stage) {
  const Plane& plane = chunk.record->planes[0];
  const Window window(plane.argument());
  const bool pairs = plane.mode() == kPair;
  const u32 each = pairs ? 2 : 1;  // elements of a symbol
  const bool units = pairs && chunk.product.columns % 8 == 0 && chunk.n % 8 == 0;
  const u8* stream = chunk.coded + (chunk.record->planes[1].mode() == kRaw ? padded(chunk.n) : 0);
  chunk.patches = stream + plane.size;
  bool fine = true;
  auto take = [&](u32 first, u32 count) {
    const u32 group = each * first, end = min(group + each * count, chunk.n);
    fine = chunk.mark(group, end) && fine;
    by_rows(chunk, group, end, [&](u32 begin, u32 stop, u64 row, float (&sum)[kBatch]) {
      if (units) {
        chunk.multiply_pairs(stage, group, begin, stop, row, window, sum);
      } else {
        chunk.multiply(begin, stop, row, sum, [&](u32 i) {
          if (chunk.marks[(i - group) / 8] >> (i - group) % 8 & 1) return 0.0f;
          if (!pairs) return chunk.element(i, stage[i - group]);
          const u32 pair = stage[(i - group) / 2], nibble = i & 1 ? pair >> 4 : pair & 15;
          return chunk.element(i, nibble == 15 ? 0 : (plane.argument() - nibble) & 255);
        });
      }
      chunk.add_patches(stop, sum, row);
    });
  };
  const u32 count = (chunk.n + each - 1) / each;
  const bool whole = rans::decode(stream, plane.size, readable, count, slots, ring, stage, take);
  if (!whole) return kStream;
  return fine ? kFine : kPatches;
}

// All other chunks: their exponents are there as bytes, nibbles or one value.
template <int kBatch>
__device__ void multiply_fixed(Chunk<kBatch>& chunk) {
  const Record& record = *chunk.record;
  const u32 mode = record.form == kFormPlanes ? record.planes[0].mode() : kRaw;
  if (mode == kWindow)
    chunk.patches = chunk.coded + padded((chunk.n + 1) / 2) +
                    (record.planes[1].mode() == kRaw ? padded(chunk.n) : 0);
  const u32 top = record.planes[0].argument();
  for (u32 group = 0; group < chunk.n; group += kGroupElements) {
    const u32 end = min(group + kGroupElements, chunk.n);
    if (mode == kWindow) chunk.mark(group, end);
    by_rows(chunk, group, end, [&](u32 begin, u32 stop, u64 row, float (&sum)[kBatch]) {
      chunk.multiply(begin, stop, row, sum, [&](u32 i) {
        if (record.form == kFormConst)
          return __uint_as_float(u32{record.value[0]} << 16 | u32{record.value[1]} << 24);
        if (record.form == kFormRaw)
          return __uint_as_float(u32{chunk.coded[2 * i]} << 16 | u32{chunk.coded[2 * i + 1]} << 24);
        if (mode == kConst) return chunk.element(i, top);
        if (mode == kRaw) return chunk.element(i, chunk.coded[i]);
        if (chunk.marks[(i - group) / 8] >> (i - group) % 8 & 1) return 0.0f;
        const u32 pair = chunk.coded[i / 2], nibble = i & 1 ? pair >> 4 : pair & 15;
        return chunk.element(i, nibble == 15 ? 0 : (top - nibble) & 255);
      });
      if (mode == kWindow) chunk.add_patches(stop, sum, row);
    });
  }
}

// Whether a record fits its bytes and is one of those above.
__device__ inline bool fits(const Record& record, u32 n, u64 used, u32 tables) {
  if (record.form == kFormConst) return true;
  u64 size = 2 * u64{n};
  if (record.form == kFormPlanes) {
    const Plane &plane = record.planes[0], &rest = record.planes[1];
    const u32 mode = plane.mode();
    const bool coded = mode == kPair || mode == kBytes;
    if (mode > kWindow || (coded ? plane.table() >= tables : plane.size != 0)) return false;
    if (rest.mode() > kConst || rest.size || rest.patches) return false;
    if (plane.patches && !coded && mode != kWindow) return false;
    size = u64{plane.size} + 3 * u64{plane.patches};
    size += mode == kRaw ? padded(n) : mode == kWindow ? padded((n + 1) / 2) : 0;
    size += rest.mode() == kRaw ? padded(n) : 0;
  } else if (record.form != kFormRaw) {
    return false;
  }
  return record.start % 16 == 0 && record.start <= used && size <= used - record.start;
}

template <int kBatch>
__device__ __forceinline__ void multiply_tile(const Tensor& tensor, const Product& product) {
  __shared__ u32 wanted;
  const u32 warp = threadIdx.x / 32, warps = blockDim.x / 32, lane = lane_id();
  u32* slots = reinterpret_cast<u32*>(room);
  u8* own = reinterpret_cast<u8*>(slots + rans::kSlots) + kWarpBytes * warp;
  u16* ring = reinterpret_cast<u16*>(own);
  u8* stage = own + 2 * rans::kRing;
  const u64 number = u64{blockIdx.x} * warps + warp, chunks = tensor.last_chunk;
  const u64 step = u64{1} << tensor.chunk_log2, used = *tensor.used;

  Chunk<kBatch> chunk;
  u32 mine = 0xFFFFFFFFu, error = kFine;
  if (number < chunks) {
    chunk.record = tensor.records + number;
    chunk.coded = tensor.coded + chunk.record->start;
    chunk.product = product;
    chunk.first = number * step;
    chunk.n = static_cast<u32>(min(step, tensor.n - chunk.first));
    chunk.next_patch = 0;
    chunk.marks = stage + rans::kGroup;
    chunk.sums = product.partials + number * product.rows_of_chunk * kBatch;
    for (u32 k = lane; k < product.rows_of_chunk * kBatch; k += 32) chunk.sums[k] = 0;
    __syncwarp();
    if (!fits(*chunk.record, chunk.n, used, static_cast<u32>(tensor.table_count))) error = kRecord;
    else if (chunk.record->form == kFormPlanes && (chunk.record->planes[0].mode() == kPair ||
                                                   chunk.record->planes[0].mode() == kBytes))
      mine = chunk.record->planes[0].table();
    else multiply_fixed(chunk);
  }
  // Once for each table that the block's chunks name: one, as a rule.
  for (;;) {
    __syncthreads();
    if (threadIdx.x == 0) wanted = 0xFFFFFFFFu;
    __syncthreads();
    if (lane == 0) atomicMin(&wanted, mine);
    __syncthreads();
    const u32 here = wanted;
    if (here == 0xFFFFFFFFu) break;
    rans::make_slots(tensor.tables + 256 * here, slots, warp, warps);
    __syncthreads();
    if (mine == here) {
      error = multiply_stream(chunk, tensor.coded + padded(used), slots, ring, stage);
      mine = 0xFFFFFFFFu;
    }
  }
  if (error != kFine && lane == 0) atomicMin(tensor.error, number << 8 | error);
}

#define KERNEL(batch)                                                                          \
  extern "C" __global__ void __launch_bounds__(256, 2)                                         \
      matvec_multiply_##batch(const Tensor tensor, const Product product) {                    \
    multiply_tile<batch>(tensor, product);                                                     \
  }
KERNEL(1)
KERNEL(2)
KERNEL(4)
KERNEL(8)

__device__ inline u16 rounded(float v) {  // to bfloat16, halves to even
  const u32 bits = __float_as_uint(v);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<u16>(bits >> 16 | 0x40);
  return static_cast<u16>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// y[b, row]: the sums of a row over its chunks, in their order, and the bias [rows] if there is one.
extern "C" __global__ void matvec_finish(const Product product, const u32 slots, const u64 rows,
                                         const u64 chunk_log2, const u16* bias, u16* y) {
  const u64 at = u64{blockIdx.x} * blockDim.x + threadIdx.x;
  if (at >= rows * product.batch) return;
  const u64 b = at / rows, row = at % rows;
  const u64 first = row * product.columns >> chunk_log2;
  const u64 last = ((row + 1) * product.columns - 1) >> chunk_log2;
  float sum = 0;
  for (u64 chunk = first; chunk <= last; ++chunk) {
    const u64 base = (chunk << chunk_log2) / product.columns;
    sum += product.partials[(chunk * product.rows_of_chunk + row - base) * slots + b];
  }
  if (bias != nullptr) sum += __uint_as_float(u32{bias[row]} << 16);
  y[at] = rounded(sum);
}
