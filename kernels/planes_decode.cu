// Decodes byte planes: one warp per chunk. planes_ref.py defines the bytes, planes_cuda.py
// describes the launch.
//
// A block takes a tile of chunks, `per_warp` for each of its warps. Streams need the slots of their
// table in shared memory, where there is room for one: the block goes through the tables its chunks
// name, and each warp decodes what it can while its table is there. With one table for the tile,
// which is the rule, that is one barrier before and one after.
//
// A stream becomes 512 symbols in shared memory at a time, which a loop of the layout joins with
// the other planes and writes as whole lines: 24 instructions of sm_90 for a step of 32 pairs and,
// with loads and stores of 16 bytes, 22 for the join of one pair a lane. The checksum, read first,
// brings the coded bytes into the cache.

#include "planes_join.cuh"
#include "warp_rans.cuh"
#include "xxh3.cuh"

extern __shared__ uint4 room[];

enum Error : u32 { kFine = 0, kChecksum = 1, kRecord = 2, kStream = 3, kPatches = 4 };

constexpr u32 kNoTable = 0xFFFFFFFFu;
constexpr u32 kWarpBytes = 2 * rans::kRing + rans::kGroup;

// A chunk as its warp decodes it.
template <int kLayout, int kWidth>
struct Chunk {
  using Of = Shape<kLayout, kWidth>;
  const Record* record;
  const u8* coded;     // of the chunk
  const u8* readable;  // the end of what may be read, a multiple of 16
  u8* out;
  u32 n, m;

  __device__ bool coded_plane(u32 p) const {
    const u32 mode = record->planes[p].mode();
    return mode == kBytes || mode == kPair;
  }
  // Bytes before the chunk's streams; before its plane p.
  __device__ u32 fixed_before(u32 p) const {
    u32 bytes = 0;
    for (u32 q = 0; q < p; ++q) {
      const u32 mode = record->planes[q].mode();
      bytes += mode == kRaw ? padded(m) : mode == kWindow ? padded((m + 1) / 2) : 0;
    }
    return bytes;
  }
  // Where the stream of plane p is, its patches follow.
  __device__ const u8* stream(u32 p) const {
    u32 bytes = fixed_before(Of::planes);
    for (u32 q = 0; q < p; ++q) {
      const Plane& plane = record->planes[q];
      bytes += plane.size + 3 * plane.patches;
    }
    return coded + bytes;
  }
};

// Checks what a record says against the coded bytes, and these against their checksum.
template <int kLayout, int kWidth>
__device__ inline u32 check_chunk(const Chunk<kLayout, kWidth>& chunk, u64 used, u32 tables,
                                  bool last, bool checksum) {
  using Of = Shape<kLayout, kWidth>;
  const Record& record = *chunk.record;
  if (record.form == kFormConst) return kFine;
  u64 size = u64{chunk.n} * kWidth;
  if (record.form == kFormPlanes) {
    size = chunk.fixed_before(Of::planes);
    for (u32 p = 0; p < Of::planes; ++p) {
      const Plane& plane = record.planes[p];
      const bool coded = chunk.coded_plane(p);
      const bool exponents = plane.mode() == kPair || plane.mode() == kWindow;
      if (plane.mode() > kWindow || (exponents && (p > 0 || kLayout != kFloat))) return kRecord;
      if (coded ? plane.table() >= tables : plane.size != 0) return kRecord;
      if (!coded && plane.mode() != kWindow && plane.patches != 0) return kRecord;
      size += u64{plane.size} + 3 * u64{plane.patches};
    }
  } else if (record.form != kFormRaw) {
    return kRecord;
  }
  if (!last) size = padded(size);
  if (record.start % 16 || record.start > used || size > used - record.start) return kRecord;
  if (!checksum) return kFine;
  const u32 found = xxh3::low_half(chunk.coded, static_cast<u32>(size));
  return found == record.checksum ? kFine : kChecksum;
}

// Joins `count` symbols (or bytes) of plane 0, the first of which has number `first`, with the
// other planes. Planes that are coded count as zeros.
template <int kLayout, int kWidth, bool kPairs>
__device__ __forceinline__ void join_group(const Chunk<kLayout, kWidth>& chunk, const u8* source,
                                           u32 first, u32 count) {
  using U = Unit<kLayout, kWidth, kPairs>;
  using Of = Shape<kLayout, kWidth>;
  const Window window(chunk.record->planes[0].argument());
  const u8* raw[3];
  u32 fill[3];
#pragma unroll
  for (u32 p = 1; p < Of::planes; ++p) {
    const Plane& plane = chunk.record->planes[p];
    raw[p - 1] = plane.mode() == kRaw ? chunk.coded + chunk.fixed_before(p) : nullptr;
    fill[p - 1] = plane.mode() == kConst ? plane.argument() * 0x01010101u : 0;
  }
  const u32 total = chunk.n * kWidth, units = (count + U::symbols - 1) / U::symbols;
#pragma unroll 4
  for (u32 u = lane_id(); u < units; u += 32) {
    u32 symbols[4], other[3][4], out[4];
    load_bytes<U::symbols>(source + u * U::symbols, symbols);
    const u32 unit = first / U::symbols + u;
#pragma unroll
    for (u32 p = 1; p < Of::planes; ++p) {
      if (raw[p - 1] != nullptr) load_bytes<U::plane_bytes>(raw[p - 1] + unit * U::plane_bytes, other[p - 1]);
      else for (u32 k = 0; k < 4; ++k) other[p - 1][k] = fill[p - 1];
    }
    U::join(symbols, other, window, out);
    store_unit(chunk.out + 16 * unit, out, total - 16 * unit);
  }
}

// Fills an area of plane 0 that is constant: the stage holds the value.
template <int kLayout, int kWidth>
__device__ inline void join_constant(const Chunk<kLayout, kWidth>& chunk, u8* stage) {
  for (u32 k = lane_id(); k < rans::kGroup; k += 32)
    stage[k] = static_cast<u8>(chunk.record->planes[0].argument());
  __syncwarp();
  for (u32 first = 0; first < chunk.m; first += rans::kGroup)
    join_group<kLayout, kWidth, false>(chunk, stage, first, min(rans::kGroup, chunk.m - first));
  __syncwarp();
}

template <int kLayout, int kWidth>
__device__ inline bool apply_patches(const Chunk<kLayout, kWidth>& chunk, u32 p) {
  const Plane& plane = chunk.record->planes[p];
  const u8* at = chunk.stream(p) + plane.size;
  const u8* values = at + 2 * plane.patches;
  bool fine = true;
  __syncwarp();  // the elements are there
  for (u32 k = lane_id(); k < plane.patches; k += 32) {
    const u32 place = at[2 * k] | u32{at[2 * k + 1]} << 8;
    const u32 next = k + 1 < plane.patches ? at[2 * k + 2] | u32{at[2 * k + 3]} << 8 : chunk.m;
    if (place < next && next <= chunk.m) {
      replace_byte<kLayout, kWidth>(chunk.out, chunk.n, p, place, values[k]);
    } else {
      fine = false;
    }
  }
  fine = __all_sync(kWarp, fine);
  return fine;
}

// A plane that is a stream, with its patches.
template <int kLayout, int kWidth>
__device__ inline u32 decode_plane(const Chunk<kLayout, kWidth>& chunk, u32 p, const u32* slots,
                                   u16* ring, u8* stage) {
  const Plane& plane = chunk.record->planes[p];
  const u8* stream = chunk.stream(p);
  bool fine;
  if (kLayout == kFloat && plane.mode() == kPair) {
    auto take = [&](u32 first, u32 count) { join_group<kLayout, kWidth, true>(chunk, stage, first, count); };
    fine = rans::decode(stream, plane.size, chunk.readable, (chunk.m + 1) / 2, slots, ring, stage, take);
  } else {
    auto take = [&](u32 first, u32 count) {
      if (p == 0) {
        join_group<kLayout, kWidth, false>(chunk, stage, first, count);
      } else {
        for (u32 k = lane_id(); k < count; k += 32)
          replace_byte<kLayout, kWidth>(chunk.out, chunk.n, p, first + k, stage[k]);
      }
    };
    __syncwarp();
    fine = rans::decode(stream, plane.size, chunk.readable, chunk.m, slots, ring, stage, take);
  }
  if (!fine) return kStream;
  return apply_patches(chunk, p) ? kFine : kPatches;
}

// Chunks and planes that need no table.
template <int kLayout, int kWidth>
__device__ inline void decode_fixed(const Chunk<kLayout, kWidth>& chunk, u8* stage, u32& error) {
  const u32 lane = lane_id(), bytes = chunk.n * kWidth;
  const Record& record = *chunk.record;
  if (record.form == kFormConst) {
    u32 out[4];
#pragma unroll
    for (u32 k = 0; k < 4; ++k)
      out[k] = kWidth == 4 ? *reinterpret_cast<const u32*>(record.value)
             : kWidth == 2 ? (record.value[0] | record.value[1] << 8) * 0x10001u
                           : record.value[0] * 0x01010101u;
    for (u32 at = 16 * lane; at < bytes; at += 512) store_unit(chunk.out + at, out, bytes - at);
  } else if (record.form == kFormRaw) {
    for (u32 at = 16 * lane; at < bytes; at += 512) {
      u32 out[4];
      load_bytes<16>(chunk.coded + at, out);  // the room ends at a multiple of 16
      store_unit(chunk.out + at, out, bytes - at);
    }
  } else if (record.planes[0].mode() == kRaw) {
    join_group<kLayout, kWidth, false>(chunk, chunk.coded, 0, chunk.m);
  } else if (record.planes[0].mode() == kConst) {
    join_constant(chunk, stage);
  } else if (kLayout == kFloat && record.planes[0].mode() == kWindow) {
    join_group<kLayout, kWidth, kLayout == kFloat>(chunk, chunk.coded, 0, (chunk.m + 1) / 2);
    if (!apply_patches(chunk, 0)) error = kPatches;
  }
}

template <int kLayout, int kWidth>
__device__ __forceinline__ void decode_tile(const Tensors& tensors, u32 per_warp, bool checksum) {
  using Of = Shape<kLayout, kWidth>;
  __shared__ u32 wanted;
  const u32 warp = threadIdx.x / 32, warps = blockDim.x / 32, lane = lane_id();
  u32* slots = reinterpret_cast<u32*>(room);
  u8* own = reinterpret_cast<u8*>(slots + rans::kSlots) + kWarpBytes * warp;
  u16* ring = reinterpret_cast<u16*>(own);
  u8* stage = own + 2 * rans::kRing;

  const Tensor tensor = tensor_of<&Tensor::first_tile>(tensors, blockIdx.x);
  const u64 first = tensor.first_chunk + (blockIdx.x - tensor.first_tile) * warps * per_warp;
  const u64 used = *tensor.used, step = u64{1} << tensor.chunk_log2;
  const u32 tables = static_cast<u32>(tensor.table_count);
  u32 here = kNoTable;

  // The warp's place: its chunk, and the next plane that is a stream.
  u32 turn = 0, plane = 0, error = kFine;
  bool fresh = true;
  Chunk<kLayout, kWidth> chunk;
  const auto enter = [&]() {
    const u64 number = first + u64{turn} * warps + warp;
    if (turn >= per_warp || number >= tensor.last_chunk) return false;
    chunk.record = tensor.records + number;
    chunk.coded = tensor.coded + chunk.record->start;
    chunk.readable = tensor.coded + padded(used);
    chunk.out = tensor.elements + (number - tensor.first_chunk) * step * kWidth;
    chunk.n = static_cast<u32>(min(step, tensor.n - number * step));
    chunk.m = Of::plane_bytes(chunk.n);
    return true;
  };
  // Goes on to the next stream; its table, or kNoTable at the end of the warp's chunks.
  const auto next_table = [&]() -> u32 {
    for (; enter(); ++turn, plane = 0, fresh = true) {
      if (fresh) {
        fresh = false;
        const u64 number = first + u64{turn} * warps + warp;
        const bool last = (number + 1) * step >= tensor.n;
        error = check_chunk(chunk, used, tables, last, checksum);
        if (error == kFine) decode_fixed(chunk, stage, error);
      }
      if (error == kFine && chunk.record->form == kFormPlanes)
        for (; plane < Of::planes; ++plane)
          if (chunk.coded_plane(plane)) return chunk.record->planes[plane].table();
      if (error != kFine && lane == 0)
        atomicMin(tensor.error, (first + u64{turn} * warps + warp) << 8 | error);
    }
    return kNoTable;
  };

  u32 mine = next_table();
  for (;;) {
    __syncthreads();
    if (threadIdx.x == 0) wanted = kNoTable;
    __syncthreads();
    if (lane == 0) atomicMin(&wanted, mine);
    __syncthreads();
    if (wanted == kNoTable) return;
    if (wanted != here) {
      here = wanted;
      rans::make_slots(tensor.tables + 256 * here, slots, warp, warps);
      __syncthreads();
    }
    while (mine == here) {
      error = decode_plane(chunk, plane, slots, ring, stage);
      ++plane;
      mine = next_table();
    }
  }
}

#define KERNEL(name, layout, width)                                                     \
  extern "C" __global__ void __launch_bounds__(256)                                     \
      planes_decode_##name(const Tensors tensors, const u32 per_warp, const int checksum) { \
    decode_tile<layout, width>(tensors, per_warp, checksum != 0);                       \
  }
LATENTPACK_SHAPES(KERNEL)
