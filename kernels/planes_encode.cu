// Encodes byte planes in the way SEGMENTS (planes_segments_ref.py): one warp per chunk, each byte
// written once, to its final place. planes_cuda.py describes the launches before this one.
//
// A chunk is split into shared memory: the planes after the first, then a room for the symbols of
// plane 0, from the end of which the words of its stream grow down over the symbols that are coded
// already. With its size known the chunk says how long it is, finds out from the chunks before it
// where it belongs ("decoupled look-back": Merrill and Garland 2016), and is copied there.

#include "planes_split.cuh"
#include "warp_rans.cuh"
#include "xxh3.cuh"

extern __shared__ uint4 room[];

// What a chunk says to those after it: bytes of its own, or of it and all before.
constexpr u64 kOwn = u64{1} << 62, kAll = u64{2} << 62, kBytesOf = kOwn - 1;

// Bytes of shared memory for a chunk of n elements, n a multiple of 32.
template <int kLayout, int kWidth>
__device__ constexpr u32 chunk_room(u32 n) {
  const u32 m = kLayout == kNibbles ? n / 2 : n;
  return (Shape<kLayout, kWidth>::planes - 1) * m + (kLayout == kFloat ? m : 2 * m) + 16;
}

template <int kLayout, int kWidth>
struct Chunk {
  using Of = Shape<kLayout, kWidth>;
  using S = Split<kLayout, kWidth>;
  const u8* in;
  u8* planes;  // shared memory of the warp
  u8* symbols;
  u32 n, m, room_of_plane, symbol_count, top;

  // What splitting finds.
  u32 patches = 0;      // exponents outside the window
  u64 with_patches = 0;  // bit u / 32 of a lane: its unit u has some
  u32 differ[4] = {};   // 0: all bytes of the plane are `first_byte`
  bool varied = false;  // not all elements are equal

  __device__ u32 first_byte(u32 p) const { return plane_byte<kLayout, kWidth>(in, n, p, 0); }
  __device__ u32 there(u32 unit) const { return min(16u, n * kWidth - 16 * unit); }
  __device__ u32 units() const { return (n * kWidth + 15) / 16; }

  __device__ S unit(u32 u) const {
    u32 words[4];
    load_unit(in + 16 * u, there(u), words);
    return S(words, there(u) / kWidth, Distances(top));
  }
  // Bits by which `words` differ from bytes of one value; only the first `bytes` count.
  __device__ static u32 differences(const u32* words, u32 count, u32 value, u32 bytes) {
    u32 d = 0;
    for (u32 k = 0; k < count; ++k) {
      const u32 mask = bytes >= 4 * k + 4 ? ~0u : bytes > 4 * k ? (1u << 8 * (bytes & 3)) - 1 : 0;
      d |= (words[k] ^ value * 0x01010101u) & mask;
    }
    return d;
  }

  __device__ __forceinline__ void split() {
    constexpr u32 kWords = (S::plane_bytes + 3) / 4;
    u32 values[4], element = 0;
#pragma unroll
    for (u32 p = 0; p < Of::planes; ++p) values[p] = first_byte(p);
#pragma unroll
    for (u32 k = 0; k < kWidth; ++k) element |= u32{in[k]} << 8 * k;
    element *= kWidth == 1 ? 0x01010101u : kWidth == 2 ? 0x00010001u : 1;
    u32 unequal = 0, outside = 0;
    const u32 exponent = values[0] * 0x00800080u;
    for (u32 u = lane_id(); u < units(); u += 32) {
      u32 words[4];
      const u32 bytes = there(u), elements = bytes / kWidth;
      load_unit(in + 16 * u, bytes, words);
      const S s(words, elements, Distances(top));
      const u32 of_plane = Of::plane_bytes(elements);
      store_bytes<S::symbols>(symbols + S::symbols * u, s.first);
#pragma unroll
      for (u32 p = 1; p < Of::planes; ++p) {
        store_bytes<S::plane_bytes>(planes + (p - 1) * room_of_plane + S::plane_bytes * u, s.other[p - 1]);
        differ[p] |= differences(s.other[p - 1], kWords, values[p], of_plane);
      }
#pragma unroll
      for (u32 k = 0; k < 4; ++k) {
        const u32 mask = bytes >= 4 * k + 4 ? ~0u : bytes > 4 * k ? (1u << 8 * (bytes & 3)) - 1 : 0;
        unequal |= (words[k] ^ element) & mask;
      }
      if constexpr (kLayout == kFloat) {
        u32 some = 0;
#pragma unroll
        for (u32 k = 0; k < S::elements / 2; ++k) {
          const u32 mask = elements >= 2 * k + 2 ? ~0u : elements > 2 * k ? 0xFFFF : 0;
          differ[0] |= (s.exponents[k] ^ exponent) & mask;
          some += __popc(s.outside[k]);  // elements that are missing are zeros, and inside
        }
        outside += some;
        if (some) with_patches |= u64{1} << u / 32;
      } else {
        differ[0] |= differences(s.first, kWords, values[0], of_plane);
      }
    }
    // What the last unit leaves of the planes' padding.
    for (u32 p = 1; p < Of::planes; ++p)
      for (u32 i = S::plane_bytes * units() + lane_id(); i < room_of_plane; i += 32)
        planes[(p - 1) * room_of_plane + i] = 0;
    patches = __reduce_add_sync(kWarp, outside);
#pragma unroll
    for (u32 p = 0; p < Of::planes; ++p) differ[p] = __reduce_or_sync(kWarp, differ[p]);
    varied = __any_sync(kWarp, unequal != 0);
  }

  // The planes that stay as they are, one after the other, where one of them is left out or the
  // first is among them: read once more, which is rare.
  __device__ void gather(bool first_too) {
    u32 to = 0;
    for (u32 p = first_too ? 0 : 1; p < Of::planes; ++p) {
      if (differ[p] == 0) continue;
      for (u32 i = lane_id(); i < padded(m); i += 32)
        planes[to + i] = i < m ? plane_byte<kLayout, kWidth>(in, n, p, i) : u8{0};
      to += padded(m);
    }
    __syncwarp();
  }

  // Positions and exponents that patch the window; only the units that have some are read again.
  __device__ void put_patches(u8* to) const {
    u32 done = 0;
    for (u32 round = 0; round * 32 < units(); ++round) {
      const bool some = with_patches >> round & 1;
      if (!__any_sync(kWarp, some)) continue;
      const u32 u = 32 * round + lane_id();
      u32 marks = 0, before = 0;  // bit i: element i of the unit
      S s = unit(some ? u : 0);
#pragma unroll
      for (u32 k = 0; k < S::elements / 2; ++k)
        marks |= (s.outside[k] >> 15 & 1) << 2 * k | (s.outside[k] >> 31) << (2 * k + 1);
      if (!some) marks = 0;
      u32 sum = __popc(marks);
#pragma unroll
      for (u32 step = 1; step < 32; step *= 2) {
        const u32 below = __shfl_up_sync(kWarp, sum, step);
        if (lane_id() >= step) sum += below;
      }
      before = done + sum - __popc(marks);
#pragma unroll
      for (u32 i = 0; i < S::elements; ++i) {
        if (!(marks >> i & 1)) continue;
        const u32 position = S::elements * u + i;
        to[2 * before] = static_cast<u8>(position);
        to[2 * before + 1] = static_cast<u8>(position >> 8);
        to[2 * patches + before] = static_cast<u8>(s.exponents[i / 2] >> (i & 1 ? 23 : 7));
        ++before;
      }
      done += __shfl_sync(kWarp, sum, 31);
    }
  }
};

// Moves `bytes` down to `to`; bytes from 16 beyond `to` on may overlap.
__device__ inline void move_down(u8* to, const u8* from, u32 bytes) {
  for (u32 first = 0; first < bytes; first += 128) {
    u8 v[4];
#pragma unroll
    for (u32 k = 0; k < 4; ++k) {
      const u32 i = first + 32 * k + lane_id();
      v[k] = i < bytes ? from[i] : 0;
    }
    __syncwarp();
#pragma unroll
    for (u32 k = 0; k < 4; ++k) {
      const u32 i = first + 32 * k + lane_id();
      if (i < bytes) to[i] = v[k];
    }
    __syncwarp();
  }
}

// Bytes of all chunks before this one. `status` is that of the tensor's chunks.
__device__ inline u64 look_back(volatile u64* status, u64 chunk) {
  u64 sum = 0;
  for (i64 last = static_cast<i64>(chunk) - 1; last >= 0; last -= 32) {
    const i64 at = last - lane_id();
    u64 said = at < 0 ? kAll : status[at];
    while (__any_sync(kWarp, said == 0)) {
      if (said == 0) said = status[at];
    }
    const u32 totals = __ballot_sync(kWarp, said >= kAll);
    const u32 stop = totals ? __ffs(totals) - 1 : 31;  // the nearest that knows everything
    u64 part = lane_id() <= stop ? said & kBytesOf : 0;
#pragma unroll
    for (u32 step = 16; step; step /= 2) part += __shfl_xor_sync(kWarp, part, step);
    sum += part;
    if (totals) break;
  }
  return sum;
}

template <int kLayout, int kWidth>
__device__ __forceinline__ void encode_chunk(const Tensor& tensor, u64 number, const rans::Entry* table,
                                             u32 segment, u32 top, u8* own, volatile u64* status) {
  using Of = Shape<kLayout, kWidth>;
  const u32 lane = lane_id();
  const u64 step = u64{1} << tensor.chunk_log2;
  const bool last = number + 1 == tensor.last_chunk;
  Chunk<kLayout, kWidth> chunk;
  chunk.in = tensor.elements + number * step * kWidth;
  chunk.n = static_cast<u32>(min(step, tensor.n - number * step));
  chunk.m = Of::plane_bytes(chunk.n);
  chunk.room_of_plane = padded(chunk.m);
  chunk.top = top;
  chunk.planes = own;
  chunk.symbols = own + (Of::planes - 1) * chunk.room_of_plane;
  chunk.symbol_count = kLayout == kFloat ? (chunk.m + 1) / 2 : chunk.m;
  chunk.split();
  __syncwarp();

  const u32 raw_bytes = chunk.n * kWidth;
  Record record = {};
  u32 size = 0, stream = 0, fixed = 0, x = 0, lanes = rans::lanes_for(chunk.symbol_count);
  const u8* words = nullptr;
  bool rearrange = false, first_raw = false;
  if (!chunk.varied) {
    record.form = kFormConst;
    for (u32 k = 0; k < kWidth; ++k) record.value[k] = chunk.in[k];
  } else {
    record.form = kFormPlanes;
    for (u32 p = 1; p < Of::planes; ++p) {
      record.planes[p].coding = chunk.differ[p] ? kRaw : kConst | chunk.first_byte(p) << 8;
      fixed += chunk.differ[p] ? chunk.room_of_plane : 0;
      rearrange |= chunk.differ[p] == 0;
    }
    Plane& plane = record.planes[0];
    if (chunk.differ[0] == 0) {
      plane.coding = kConst | chunk.first_byte(0) << 8;
      chunk.patches = 0;
    } else {
      const u32 beside = 1 + 4 * lanes + 3 * chunk.patches;
      u8* end = chunk.symbols + 2 * chunk.symbol_count;
      if (beside < chunk.m)
        words = rans::encode(chunk.symbols, chunk.symbol_count, table, chunk.m - beside - 1, end, x);
      if (words != nullptr) {
        stream = 1 + 4 * lanes + static_cast<u32>(end - words);
        plane.coding = kLayout == kFloat ? kPair | top << 8 | segment << 16 : kBytes | segment << 16;
        plane.patches = chunk.patches;
        plane.size = stream;
      } else {
        plane.coding = kRaw;
        first_raw = rearrange = true;
        fixed += chunk.room_of_plane;
        chunk.patches = 0;
      }
    }
    size = fixed + stream + 3 * chunk.patches;
    if (size >= raw_bytes) {
      record = {};
      record.form = kFormRaw;
      size = raw_bytes;
    }
  }
  const u32 whole = last ? size : padded(size);
  if (lane == 0) status[number] = (number == 0 ? kAll : kOwn) | whole;

  const u8* bytes = own;
  if (record.form == kFormRaw) {
    bytes = chunk.in;
  } else if (record.form == kFormPlanes) {
    if (rearrange) chunk.gather(first_raw);
    u8* to = own + fixed;
    if (words != nullptr) {
      move_down(to + 1 + 4 * lanes, words, stream - 1 - 4 * lanes);
      if (lane == 0) to[0] = static_cast<u8>(31 - __clz(lanes));
      if (lane < lanes)
        for (u32 k = 0; k < 4; ++k) to[1 + 4 * lane + k] = static_cast<u8>(x >> 8 * k);
      if (kLayout == kFloat && chunk.patches) chunk.put_patches(to + stream);
    }
    for (u32 at = size + lane; at < padded(size); at += 32) own[at] = 0;
  }
  __syncwarp();
  if (record.form != kFormConst) record.checksum = xxh3::low_half(bytes, whole);

  record.start = look_back(status, number);
  if (lane == 0) {
    status[number] = kAll | (record.start + whole);
    tensor.records[number] = record;
    if (last) *tensor.used = record.start + whole;
  }
  u8* out = const_cast<u8*>(tensor.coded) + record.start;
  for (u32 at = 16 * lane; at < whole; at += 512) {
    uint4 v;
    if (record.form == kFormRaw) {
      u32 words_in[4];
      load_unit(chunk.in + at, whole - at, words_in);
      v = make_uint4(words_in[0], words_in[1], words_in[2], words_in[3]);
    } else {
      v = *reinterpret_cast<const uint4*>(own + at);
    }
    __stcs(reinterpret_cast<uint4*>(out + at), v);
  }
}

template <int kLayout, int kWidth>
__device__ __forceinline__ void encode_tile(const Tensors& tensors, u64* all_status, u32* tickets,
                                            const u32* tops, const rans::Entry* entries) {
  __shared__ u32 ticket;
  __shared__ rans::Entry tables[2][256];
  const u32 warp = threadIdx.x / 32, warps = blockDim.x / 32;
  if (threadIdx.x == 0) ticket = atomicAdd(tickets, 1u);  // tiles in the order in which they start
  __syncthreads();
  const Tensor tensor = tensor_of<&Tensor::first_tile>(tensors, ticket);
  const u64 first = (ticket - tensor.first_tile) * warps, number = first + warp;
  const u64 count = tensor.table_count, chunks = tensor.last_chunk;
  const auto segment_of = [&](u64 chunk) { return chunk * count / chunks; };
  // A tile has chunks of at most two segments, which have more chunks than a tile.
  const u64 lowest = segment_of(first);
  for (u32 k = threadIdx.x; k < 512; k += blockDim.x) {
    const u64 from = tensor.first_segment + min(lowest + k / 256, count - 1);
    tables[k / 256][k & 255] = entries[256 * from + (k & 255)];
  }
  __syncthreads();
  if (number >= chunks) return;
  const u32 segment = static_cast<u32>(segment_of(number));
  const u32 bytes = chunk_room<kLayout, kWidth>(1u << tensor.chunk_log2);
  const u32 top = kLayout == kFloat ? tops[tensor.first_segment + segment] : 0;
  encode_chunk<kLayout, kWidth>(tensor, number, tables[segment - lowest], segment, top,
                                reinterpret_cast<u8*>(room) + bytes * warp,
                                all_status + tensor.first_status);
}

#define KERNEL(name, layout, width)                                                        \
  extern "C" __global__ void __launch_bounds__(256)                                        \
      planes_encode_##name(const Tensors tensors, u64* status, u32* tickets, const u32* tops, \
                           const rans::Entry* entries) {                                   \
    encode_tile<layout, width>(tensors, status, tickets, tops, entries);                   \
  }
LATENTPACK_SHAPES(KERNEL)
