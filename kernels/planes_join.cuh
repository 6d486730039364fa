// Planes to elements, 16 bytes of elements at a time: a lane's unit.
#pragma once

#include "planes.cuh"

// N bytes (1, 2, 4, 8, 16; aligned) into words.
template <int N>
__device__ __forceinline__ void load_bytes(const u8* at, u32 (&words)[4]) {
  if constexpr (N == 16) {
    const uint4 v = *reinterpret_cast<const uint4*>(at);
    words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
  } else if constexpr (N == 8) {
    const uint2 v = *reinterpret_cast<const uint2*>(at);
    words[0] = v.x, words[1] = v.y;
  } else if constexpr (N == 4) {
    words[0] = *reinterpret_cast<const u32*>(at);
  } else if constexpr (N == 2) {
    words[0] = *reinterpret_cast<const u16*>(at);
  } else {
    words[0] = *at;
  }
}

// `valid` bytes (at most 16) of a unit to an address of a multiple of 16.
__device__ __forceinline__ void store_unit(u8* at, const u32 (&out)[4], u32 valid) {
  if (valid >= 16) {
    __stcs(reinterpret_cast<uint4*>(at), make_uint4(out[0], out[1], out[2], out[3]));
    return;
  }
#pragma unroll
  for (u32 k = 0; k < 16; ++k)
    if (k < valid) at[k] = static_cast<u8>(out[k / 4] >> 8 * (k & 3));
}

// What turns pairs of window nibbles into exponents: some 11 instructions for two.
//
// Fields of 16 bits: the exponent in bits 7 to 14, as in a bf16. The guard in bits 15 and 31 takes
// the borrow of tops below the distance, so that the difference is one modulo 256.
struct Window {
  u32 tops;
  __device__ explicit Window(u32 top) : tops(top * 0x00800080u | 0x80008000u) {}
  __device__ __forceinline__ u32 exponents(u32 pair) const {
    const u32 distance = (pair << 7 & 0x00000780u) | (pair << 19 & 0x07800000u);
    const u32 inside = ~(distance + 0x00800080u) & 0x08000800u;  // no distance of 15
    return (tops - distance) & (inside * 16 - (inside >> 4));
  }
};
__device__ __forceinline__ u32 exponents_of_bytes(u32 first, u32 second) {
  return first << 7 | second << 23;
}

// Two bf16 (or the upper halves of two float32) of exponents and rests: 3 instructions.
__device__ __forceinline__ u32 join_floats(u32 exponents, u32 rests) {
  return exponents | (__byte_perm(rests, 0, 0x1100) & 0x807F807Fu);
}

__device__ __forceinline__ u32 byte_of(const u32 (&words)[4], u32 i) {
  return words[i / 4] >> 8 * (i & 3) & 255;
}
__device__ __forceinline__ u32 half_of(const u32 (&words)[4], u32 i) {
  return words[i / 2] >> 16 * (i & 1) & 0xFFFF;
}

template <int kLayout, int kWidth, bool kPairs>
struct Unit {
  static constexpr u32 elements = 16 / kWidth;
  static constexpr u32 plane_bytes = kLayout == kNibbles ? elements / 2 : elements;
  static constexpr u32 symbols = kPairs ? elements / 2 : plane_bytes;  // of plane 0

  // The elements of 16 bytes; `other` are the planes after the first.
  __device__ static __forceinline__ void join(const u32 (&first)[4], const u32 (&other)[3][4],
                                              Window window, u32 (&out)[4]) {
    if constexpr (kLayout == kFloat) {
#pragma unroll
      for (u32 k = 0; k < elements / 2; ++k) {
        const u32 e = kPairs ? window.exponents(byte_of(first, k))
                             : exponents_of_bytes(byte_of(first, 2 * k), byte_of(first, 2 * k + 1));
        const u32 upper = join_floats(e, half_of(other[0], k));
        if constexpr (kWidth == 2) {
          out[k] = upper;
        } else {
          const u32 lower = __byte_perm(half_of(other[2], k), half_of(other[1], k), 0x5140);
          out[2 * k] = __byte_perm(lower, upper, 0x5410);
          out[2 * k + 1] = __byte_perm(lower, upper, 0x7632);
        }
      }
    } else if constexpr (kLayout == kNibbles) {
#pragma unroll
      for (u32 k = 0; k < 2; ++k) {
        const u32 e = first[k], r = other[0][k];
        const u32 even = (r << 4 & 0x80808080u) | (e << 3 & 0x78787878u) | (r & 0x07070707u);
        const u32 odd = (r & 0x80808080u) | (e >> 1 & 0x78787878u) | (r >> 4 & 0x07070707u);
        out[2 * k] = __byte_perm(even, odd, 0x5140);
        out[2 * k + 1] = __byte_perm(even, odd, 0x7362);
      }
    } else if constexpr (kWidth == 2) {
#pragma unroll
      for (u32 k = 0; k < 2; ++k) {
        out[2 * k] = __byte_perm(other[0][k], first[k], 0x5140);
        out[2 * k + 1] = __byte_perm(other[0][k], first[k], 0x7362);
      }
    } else {
#pragma unroll
      for (u32 k = 0; k < 4; ++k) out[k] = first[k];
    }
  }
};

// Replaces byte i of plane p in elements that are there; n of them.
template <int kLayout, int kWidth>
__device__ inline void replace_byte(u8* elements, u32 n, u32 p, u32 i, u32 value) {
  if constexpr (kLayout == kNibbles) {
#pragma unroll
    for (u32 k = 0; k < 2; ++k, value >>= 4) {
      if (2 * i + k >= n) break;
      u8& b = elements[2 * i + k];
      if (p == 0) b = static_cast<u8>((b & 0x87) | (value & 15) << 3);
      else b = static_cast<u8>((b & 0x78) | (value & 8) << 4 | (value & 7));
    }
  } else {
    u8* at = elements + kWidth * i;
    if (kLayout == kBytePlanes || p >= 2) {
      at[kWidth - 1 - p] = static_cast<u8>(value);
    } else {
      u8 &high = at[kWidth - 1], &low = at[kWidth - 2];
      if (p == 0) {
        high = static_cast<u8>((high & 0x80) | value >> 1);
        low = static_cast<u8>((low & 0x7F) | value << 7);
      } else {
        high = static_cast<u8>((high & 0x7F) | (value & 0x80));
        low = static_cast<u8>((low & 0x80) | (value & 0x7F));
      }
    }
  }
}
