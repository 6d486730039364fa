// rANS streams by a warp: 12-bit tables of 256 symbols, 32 lanes (or fewer) that share one
// sequence of words. rans_ref.py and planes_tables_ref.py define the stream.
#pragma once

#include "device.cuh"

namespace rans {

constexpr u32 kLower = 1u << 16, kPrecision = 12, kSlots = 1u << kPrecision;
constexpr u32 kRing = 512;   // words staged in shared memory
constexpr u32 kGroup = 512;  // symbols handed on at once

// An entry of the decoder: freq << 20 | symbol << 12 | slot - cum. No freq is 2^12.
//
// Fills slots[4096] from freqs[256] (16-byte aligned). All warps of the block take part; a barrier
// must follow. Each warp knows all sums and writes the slots of every `warps`-th eight symbols.
__device__ inline void make_slots(const u16* freqs, u32* slots, u32 warp, u32 warps) {
  const u32 lane = lane_id();
  const uint4 packed = reinterpret_cast<const uint4*>(freqs)[lane];
  const u32 words[4] = {packed.x, packed.y, packed.z, packed.w};
  u32 own = 0;
#pragma unroll
  for (u32 j = 0; j < 4; ++j) own += (words[j] & 0xFFFF) + (words[j] >> 16);
  u32 end = own;
#pragma unroll
  for (u32 step = 1; step < 32; step *= 2) {
    const u32 below = __shfl_up_sync(kWarp, end, step);
    if (lane >= step) end += below;
  }
  for (u32 owner = warp; owner < 32; owner += warps) {
    u32 cum = __shfl_sync(kWarp, end - own, owner);
#pragma unroll
    for (u32 j = 0; j < 8; ++j) {
      const u32 word = __shfl_sync(kWarp, words[j / 2], owner);
      const u32 freq = j & 1 ? word >> 16 : word & 0xFFFF;
      const u32 entry = freq << 20 | (8 * owner + j) << 12;
      for (u32 k = lane; k < freq && cum + k < kSlots; k += 32) slots[cum + k] = entry | k;
      cum += freq;
    }
  }
}

// The words of a stream: read 512 bytes ahead with 16-byte loads, brought to even addresses by
// funnel shifts, staged in a ring of shared memory. About 20 instructions for 256 words. Words are
// numbered from the 16-byte block on that holds the first.
struct Words {
  const u8* next;   // where this lane reads next
  const u8* limit;  // 16-byte blocks from here on are not read: they count as zeros
  uint4 ahead, beyond;
  u32 shift;       // 8 if the words start at odd addresses
  u32 at, staged;  // numbers of the next word, and of the first that is not in the ring
  u16* ring;

  __device__ __forceinline__ uint4 load() {
    uint4 v = {0, 0, 0, 0};
    if (next < limit) v = __ldcs(reinterpret_cast<const uint4*>(next));
    next += 512;
    return v;
  }
  __device__ __forceinline__ void start(const u8* first, const u8* readable, u16* room) {
    const u32 off = static_cast<u32>(reinterpret_cast<u64>(first) & 15);
    next = first - off + 16 * lane_id();
    limit = readable;
    shift = (off & 1) * 8;
    at = off >> 1;
    staged = 0;
    ring = room;
    ahead = load();
    beyond = load();
    refill();
    refill();
  }
  // Stages 256 words more, in place of the oldest.
  __device__ __forceinline__ void refill() {
    const u32 lane = lane_id();
    const uint4 fresh = load();  // not needed before the refill after the next
    const u32 first = __shfl_sync(kWarp, beyond.x, 0);
    u32 after = __shfl_down_sync(kWarp, ahead.x, 1);
    if (lane == 31) after = first;
    __syncwarp();  // what is overwritten has been read
    reinterpret_cast<uint4*>(ring + (staged & (kRing - 1)))[lane] =
        make_uint4(__funnelshift_r(ahead.x, ahead.y, shift), __funnelshift_r(ahead.y, ahead.z, shift),
                   __funnelshift_r(ahead.z, ahead.w, shift), __funnelshift_r(ahead.w, after, shift));
    staged += 256;
    ahead = beyond;
    beyond = fresh;
    __syncwarp();
  }
  // Has at least 256 words staged: enough for 8 steps.
  __device__ __forceinline__ void ready() {
    if (staged - at < 256) refill();
  }
};

// One symbol for each active lane (the lowest byte of what is returned). 24 instructions of sm_90
// with the caller's store: the look-up, the product, the vote, the place of the word, the word.
__device__ __forceinline__ u32 decode_step(u32& x, bool active, const u32* slots, Words& words,
                                           u32 below) {
  const u32 entry = slots[x & (kSlots - 1)];
  u32 y = (entry >> 20) * (x >> kPrecision) + (entry & (kSlots - 1));
  const bool low = active && y < kLower;
  const u32 votes = __ballot_sync(kWarp, low);
  if (low) y = y << 16 | words.ring[(words.at + __popc(votes & below)) & (kRing - 1)];
  words.at += __popc(votes);
  if (active) x = y;
  return entry >> 12;
}

// Decodes `count` symbols of the stream of `size` bytes at `stream`; whether it ends cleanly.
// Calls take(first, n) whenever n symbols from number `first` on are in stage[kGroup]. Nothing is
// read from `readable` (a multiple of 16 bytes) on, whatever the stream says.
template <class Take>
__device__ __forceinline__ bool decode(const u8* stream, u32 size, const u8* readable, u32 count,
                                       const u32* slots, u16* ring, u8* stage, Take take) {
  const u32 lane = lane_id(), below = lanes_below(lane);
  const u32 log = size ? stream[0] : 32;
  const u32 lanes = log <= 5 ? 1u << log : 33;
  if (lanes > 32 || size < 1 + 4 * lanes || size % 2 == 0) return false;
  u32 x = kLower;
  if (lane < lanes) {
    const u8* at = stream + 1 + 4 * lane;
    x = at[0] | u32{at[1]} << 8 | u32{at[2]} << 16 | u32{at[3]} << 24;
  }
  Words words;
  words.start(stream + 1 + 4 * lanes, readable, ring);
  const u32 end = words.at + (size - 1 - 4 * lanes) / 2;
  for (u32 first = 0; first < count; first += kGroup) {
    const u32 n = min(kGroup, count - first);
    if (lanes == 32 && n == kGroup) {
#pragma unroll 1
      for (u32 half = 0; half < kGroup; half += kGroup / 2) {
        words.ready();
#pragma unroll
        for (u32 step = 0; step < kGroup / 2; step += 32)
          stage[half + step + lane] = static_cast<u8>(decode_step(x, true, slots, words, below));
      }
    } else {
      for (u32 step = 0; step < n; step += lanes) {
        words.ready();
        const bool active = lane < lanes && step + lane < n;
        const u32 symbol = decode_step(x, active, slots, words, below);
        if (active) stage[step + lane] = static_cast<u8>(symbol);
      }
    }
    __syncwarp();
    take(first, n);
    __syncwarp();
  }
  return __all_sync(kWarp, x == kLower && words.at == end);
}

// An entry of the encoder.
struct Entry {
  u32 freq_cum;    // freq | cum << 16
  u32 reciprocal;  // floor(2^32 / freq)
};

__device__ inline u32 reciprocal(u32 freq) {
  return freq <= 1 ? 0xFFFFFFFFu : static_cast<u32>((u64{1} << 32) / freq);
}

__device__ inline u32 lanes_for(u32 count) { return count >= 2048 ? 32 : count >= 128 ? 4 : 1; }

// Codes symbols[count], which may lie in front of the words: those grow down from `end` and reach
// at most 2 bytes of each symbol that is no longer needed. Returns the words' first byte, or
// nullptr if they take more than `most` bytes; x is the lane's state. Some 55 instructions of sm_90
// a step.
__device__ __forceinline__ u8* encode(const u8* symbols, u32 count, const Entry* table, u32 most,
                                      u8* end, u32& x) {
  const u32 lane = lane_id(), below = lanes_below(lane), lanes = lanes_for(count);
  u32 used = 0;
  x = kLower;
  bool active = lane < lanes && (count - 1) / lanes * lanes + lane < count;
  for (u32 step = (count - 1) / lanes * lanes + lanes; step > 0 && used <= most; step -= lanes) {
    u32 word = 0;
    bool full = false;
    Entry entry = {1, 0};
    if (active) {
      entry = table[symbols[step - lanes + lane]];
      full = x >> (32 - kPrecision) >= (entry.freq_cum & 0xFFFF);
      word = x;
    }
    const u32 votes = __ballot_sync(kWarp, full);  // all have read their symbol
    used += 2 * __popc(votes);
    if (full) {
      reinterpret_cast<u16*>(end - used)[__popc(votes & below)] = static_cast<u16>(word);
      x >>= 16;
    }
    if (active) {
      const u32 freq = entry.freq_cum & 0xFFFF;
      u32 q = __umulhi(x, entry.reciprocal);
      q += x - q * freq >= freq;  // the rounded reciprocal makes it at most one too small
      x += (entry.freq_cum >> 16) + q * (kSlots - freq);
    }
    active = lane < lanes;
  }
  __syncwarp();
  return used <= most ? end - used : nullptr;
}

}  // namespace rans
