// Elements to planes, 16 bytes of elements at a time: a lane's unit. The mirror of planes_join.cuh.
#pragma once

#include "planes.cuh"

// `valid` bytes (16 or more: all) at an address of a multiple of 16; zeros for the others.
__device__ __forceinline__ void load_unit(const u8* at, u32 valid, u32 (&in)[4]) {
  if (valid >= 16) {
    const uint4 v = __ldg(reinterpret_cast<const uint4*>(at));
    in[0] = v.x, in[1] = v.y, in[2] = v.z, in[3] = v.w;
    return;
  }
#pragma unroll
  for (u32 k = 0; k < 4; ++k) in[k] = 0;
#pragma unroll
  for (u32 k = 0; k < 16; ++k)
    if (k < valid) in[k / 4] |= u32{at[k]} << 8 * (k & 3);
}

template <int N>
__device__ __forceinline__ void store_bytes(u8* at, const u32 (&words)[4]) {
  if constexpr (N == 16) *reinterpret_cast<uint4*>(at) = make_uint4(words[0], words[1], words[2], words[3]);
  else if constexpr (N == 8) *reinterpret_cast<uint2*>(at) = make_uint2(words[0], words[1]);
  else if constexpr (N == 4) *reinterpret_cast<u32*>(at) = words[0];
  else *reinterpret_cast<u16*>(at) = static_cast<u16>(words[0]);
}

// Pairs of exponents, in bits 7 to 14 and 23 to 30, as window nibbles: 14 instructions for two.
struct Distances {
  u32 tops;
  __device__ explicit Distances(u32 top) : tops(top * 0x00800080u | 0x80008000u) {}
  // The pair of nibbles; bits 15 and 31 of `outside` are set where a patch must mend it.
  __device__ __forceinline__ u32 nibbles(u32 exponents, u32& outside) const {
    const u32 distance = (tops - exponents) & 0x7F807F80u;
    const u32 far = (distance + 0x78807880u) & 0x80008000u;  // 15 or more
    const u32 some = (exponents + 0x7F807F80u) & 0x80008000u;
    const u32 inside = some & ~far;
    const u32 both = (distance >> 7 | ~((inside >> 11) - (inside >> 15))) & 0x000F000Fu;
    outside = some & far;
    return (both | both >> 12) & 0xFF;
  }
};

// The planes of a unit of which `valid` elements (at most `elements`) are there.
template <int kLayout, int kWidth>
struct Split {
  static constexpr u32 elements = 16 / kWidth;
  static constexpr u32 plane_bytes = kLayout == kNibbles ? elements / 2 : elements;
  static constexpr u32 symbols = kLayout == kFloat ? elements / 2 : plane_bytes;
  u32 first[4];       // symbols of plane 0
  u32 other[3][4];    // bytes of the other planes
  u32 exponents[4];   // FLOAT: as in the elements, a pair to a word
  u32 outside[4];     // FLOAT: see Distances

  __device__ __forceinline__ Split(const u32 (&in)[4], u32 valid, Distances window) {
    if constexpr (kLayout == kFloat) {
      first[0] = other[0][0] = other[0][1] = other[1][0] = other[2][0] = 0;
#pragma unroll
      for (u32 k = 0; k < elements / 2; ++k) {
        const u32 upper = kWidth == 2 ? in[k] : __byte_perm(in[2 * k], in[2 * k + 1], 0x7632);
        exponents[k] = upper & 0x7F807F80u;
        u32 pair = window.nibbles(exponents[k], outside[k]);
        if (2 * k + 1 >= valid) pair &= 2 * k < valid ? 15 : 0;
        first[0] |= pair << 8 * k;
        const u32 rests = (upper & 0x007F007Fu) | (upper >> 8 & 0x00800080u);
        other[0][k / 2] |= __byte_perm(rests, 0, 0x4420) << 16 * (k & 1);
        if constexpr (kWidth == 4) {
          other[1][0] |= (__byte_perm(in[2 * k], in[2 * k + 1], 0x0051) & 0xFFFF) << 16 * k;
          other[2][0] |= (__byte_perm(in[2 * k], in[2 * k + 1], 0x0040) & 0xFFFF) << 16 * k;
        }
      }
    } else if constexpr (kLayout == kNibbles) {
#pragma unroll
      for (u32 k = 0; k < 2; ++k) {
        const u32 even = __byte_perm(in[2 * k], in[2 * k + 1], 0x6420);
        const u32 odd = __byte_perm(in[2 * k], in[2 * k + 1], 0x7531);
        first[k] = (even >> 3 & 0x0F0F0F0Fu) | (odd << 1 & 0xF0F0F0F0u);
        other[0][k] = (even >> 4 & 0x08080808u) | (even & 0x07070707u) | (odd & 0x80808080u) |
                      (odd << 4 & 0x70707070u);
      }
    } else if constexpr (kWidth == 2) {
#pragma unroll
      for (u32 k = 0; k < 2; ++k) {
        first[k] = __byte_perm(in[2 * k], in[2 * k + 1], 0x7531);
        other[0][k] = __byte_perm(in[2 * k], in[2 * k + 1], 0x6420);
      }
    } else {
#pragma unroll
      for (u32 k = 0; k < 4; ++k) first[k] = in[k];
    }
  }
};

// Byte i of plane p of n elements.
template <int kLayout, int kWidth>
__device__ inline u8 plane_byte(const u8* in, u32 n, u32 p, u32 i) {
  if constexpr (kLayout == kNibbles) {
    const u32 even = in[2 * i], odd = 2 * i + 1 < n ? in[2 * i + 1] : 0;
    if (p == 0) return static_cast<u8>((even >> 3 & 15) | (odd << 1 & 0xF0));
    return static_cast<u8>((even >> 4 & 8) | (even & 7) | (odd & 0x80) | (odd << 4 & 0x70));
  } else {
    const u8* at = in + kWidth * i;
    if (kLayout == kBytePlanes || p >= 2) return at[kWidth - 1 - p];
    const u32 high = at[kWidth - 1], low = at[kWidth - 2];
    return static_cast<u8>(p == 0 ? high << 1 | low >> 7 : (high & 128) | (low & 127));
  }
}
