// XXH3, 64 bits, seed 0, as in xxh3.h, by a warp: the low half, which is the chunks' checksum.
//
// Sums within a block of 16 stripes do not depend on the order: lane l takes accumulator l & 7 of
// every fourth stripe, and each accumulator is kept four times. A block of 1 KiB takes about 60
// instructions of the warp, a fifth of what decoding it takes.
#pragma once

#include "device.cuh"

namespace xxh3 {

constexpr u64 kPrime32_1 = 0x9E3779B1u, kPrime32_2 = 0x85EBCA77u, kPrime32_3 = 0xC2B2AE3Du;
constexpr u64 kPrime64_1 = 0x9E3779B185EBCA87ull, kPrime64_2 = 0xC2B2AE3D27D4EB4Full;
constexpr u64 kPrime64_3 = 0x165667B19E3779F9ull, kPrime64_4 = 0x85EBCA77C2B2AE63ull;
constexpr u64 kPrime64_5 = 0x27D4EB2F165667C5ull;
constexpr u64 kMix1 = 0x165667919E3779F9ull, kMix2 = 0x9FB21C651E98DF25ull;
constexpr u32 kStripe = 64, kBlock = 1024, kSecretBytes = 192;

__constant__ const u64 kSecret[24] = {
    0xbe4ba423396cfeb8ull, 0x1cad21f72c81017cull, 0xdb979083e96dd4deull, 0x1f67b3b7a4a44072ull,
    0x78e5c0cc4ee679cbull, 0x2172ffcc7dd05a82ull, 0x8e2443f7744608b8ull, 0x4c263a81e69035e0ull,
    0xcb00c391bb52283cull, 0xa32e531b8b65d088ull, 0x4ef90da297486471ull, 0xd8acdea946ef1938ull,
    0x3f349ce33f76faa8ull, 0x1d4f0bc7c7bbdcf9ull, 0x3159b4cd4be0518aull, 0x647378d9c97e9fc8ull,
    0xc3ebd33483acc5eaull, 0xeb6313faffa081c5ull, 0x49daf0b751dd0d17ull, 0x9e68d429265516d3ull,
    0xfca1477d58be162bull, 0xce31d07ad1b8f88full, 0x280416958f3acb45ull, 0x7e404bbbcafbd7afull};

// Eight bytes of the secret from any byte on.
__device__ inline u64 secret(u32 at) {
  const u32 shift = 8 * (at & 7);
  const u64 low = kSecret[at >> 3] >> shift;
  return shift ? low | kSecret[(at >> 3) + 1] << (64 - shift) : low;
}
__device__ inline u64 read(const u8* at, u32 bytes) {
  u64 v = 0;
  for (u32 i = 0; i < bytes; ++i) v |= u64{at[i]} << 8 * i;
  return v;
}
__device__ inline u64 swap(u64 v) {
  const u32 low = __byte_perm(static_cast<u32>(v), 0, 0x0123);
  return u64{low} << 32 | __byte_perm(static_cast<u32>(v >> 32), 0, 0x0123);
}
__device__ inline u64 fold(u64 a, u64 b) { return a * b ^ __umul64hi(a, b); }
__device__ inline u64 avalanche(u64 h) {
  h = (h ^ h >> 37) * kMix1;
  return h ^ h >> 32;
}
__device__ inline u64 avalanche64(u64 h) {
  h = (h ^ h >> 33) * kPrime64_2;
  h = (h ^ h >> 29) * kPrime64_3;
  return h ^ h >> 32;
}
__device__ inline u64 mix16(const u8* in, u32 at) {
  return fold(read(in, 8) ^ secret(at), read(in + 8, 8) ^ secret(at + 8));
}

// Of at most 240 bytes; every lane finds it.
__device__ inline u64 of_few(const u8* in, u32 n) {
  if (n > 16) {
    u64 h = n * kPrime64_1;
    if (n <= 128) {
      for (u32 i = (n - 1) / 32 + 1; i-- > 0;)
        h += mix16(in + 16 * i, 32 * i) + mix16(in + n - 16 * (i + 1), 32 * i + 16);
      return avalanche(h);
    }
    for (u32 i = 0; i < 8; ++i) h += mix16(in + 16 * i, 16 * i);
    h = avalanche(h);
    for (u32 i = 8; i < n / 16; ++i) h += mix16(in + 16 * i, 16 * (i - 8) + 3);
    return avalanche(h + mix16(in + n - 16, 136 - 17));
  }
  if (n > 8) {
    const u64 low = read(in, 8) ^ secret(24) ^ secret(32);
    const u64 high = read(in + n - 8, 8) ^ secret(40) ^ secret(48);
    return avalanche(n + swap(low) + high + fold(low, high));
  }
  if (n >= 4) {
    u64 h = read(in + n - 4, 4) + (read(in, 4) << 32);
    h ^= secret(8) ^ secret(16);
    h ^= (h << 49 | h >> 15) ^ (h << 24 | h >> 40);
    h *= kMix2;
    h ^= (h >> 35) + n;
    h *= kMix2;
    return h ^ h >> 28;
  }
  if (n > 0) {
    const u32 v = u32{in[0]} << 16 | u32{in[n >> 1]} << 24 | in[n - 1] | n << 8;
    return avalanche64(v ^ u64{static_cast<u32>(secret(0)) ^ static_cast<u32>(secret(4))});
  }
  return avalanche64(secret(56) ^ secret(64));
}

// The accumulators of a warp.
struct Sums {
  u64 acc, secrets[4];
  u32 i, group;

  __device__ Sums() : i(lane_id() & 7), group(lane_id() >> 3) {
    // Selected rather than looked up: an array would live in local memory.
    acc = i == 0 ? kPrime32_3 : i == 1 ? kPrime64_1 : i == 2 ? kPrime64_2 : i == 3 ? kPrime64_3
        : i == 4 ? kPrime64_4 : i == 5 ? kPrime32_2 : i == 6 ? kPrime64_5 : kPrime32_1;
#pragma unroll
    for (u32 j = 0; j < 4; ++j) secrets[j] = kSecret[group + 4 * j + i];
  }
  __device__ void add(u64 products, u64 values) {
    u64 t = products + __shfl_xor_sync(kWarp, values, 1);
    t += __shfl_xor_sync(kWarp, t, 8);
    acc += t + __shfl_xor_sync(kWarp, t, 16);
  }
  // Up to 16 stripes, at an address of a multiple of 8.
  __device__ void stripes(const u8* in, u32 count) {
    u64 products = 0, values = 0;
#pragma unroll
    for (u32 j = 0; j < 4; ++j) {
      const u32 s = group + 4 * j;
      if (s >= count) break;
      const u64 v = *reinterpret_cast<const u64*>(in + kStripe * s + 8 * i), k = v ^ secrets[j];
      products += (k & 0xFFFFFFFF) * (k >> 32);
      values += v;
    }
    add(products, values);
  }
};

// Of n bytes at an address of a multiple of 8; all lanes call it and get it.
__device__ inline u32 low_half(const u8* in, u32 n) {
  if (n <= 240) return static_cast<u32>(of_few(in, n));
  Sums sums;
  u32 at = 0;
  for (; at + kBlock < n; at += kBlock) {
    sums.stripes(in + at, kBlock / kStripe);
    sums.acc = (sums.acc ^ sums.acc >> 47 ^ kSecret[16 + sums.i]) * kPrime32_1;
  }
  sums.stripes(in + at, (n - 1 - at) / kStripe);
  u64 v = 0, k = 0;
  if (sums.group == 0) {
    v = read(in + n - kStripe + 8 * sums.i, 8);
    k = v ^ secret(kSecretBytes - kStripe - 7 + 8 * sums.i);
  }
  sums.add((k & 0xFFFFFFFF) * (k >> 32), v);
  const u64 mine = sums.acc ^ secret(11 + 8 * sums.i);
  u64 h = fold(mine, __shfl_xor_sync(kWarp, mine, 1));
  h += __shfl_xor_sync(kWarp, h, 2);
  h += __shfl_xor_sync(kWarp, h, 4);
  return static_cast<u32>(avalanche(h + n * kPrime64_1));
}

}  // namespace xxh3
