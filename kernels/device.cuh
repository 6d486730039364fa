// What the .cu files of this folder share: integer types, and a warp's places and copies.
#pragma once

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i16 = short;
using i32 = int;
using i64 = long long;

constexpr u32 kWarp = 0xFFFFFFFFu;  // the mask of all lanes

__device__ __forceinline__ u32 lane_id() { return threadIdx.x & 31; }
__device__ __forceinline__ u32 lanes_below(u32 lane) { return (1u << lane) - 1; }
