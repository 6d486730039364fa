// What encoder and decoder of byte planes share on the device; planes_ref.py defines the bytes.
#pragma once

#include "device.cuh"

enum Layout { kBytePlanes = 0, kFloat = 1, kNibbles = 2 };
enum Form : u32 { kFormRaw = 0, kFormConst = 1, kFormPlanes = 2 };
enum Mode : u32 { kRaw = 0, kConst = 1, kBytes = 2, kPair = 3, kWindow = 4 };

constexpr u32 kMaxPlanes = 4;

struct Plane {
  u32 coding;  // mode | top or value << 8 | table << 16
  u32 patches;
  u32 size;  // bytes of the stream

  __device__ u32 mode() const { return coding & 255; }
  __device__ u32 argument() const { return coding >> 8 & 255; }
  __device__ u32 table() const { return coding >> 16; }
};

// How a chunk is coded: 64 bytes, int32 [16] for the host.
struct Record {
  u32 form, checksum;
  u64 start;  // of its coded bytes
  union {
    Plane planes[kMaxPlanes];
    u8 value[8];  // of all elements, form 1
  };
};
static_assert(sizeof(Record) == 64, "the host packs and unpacks it");

// A tensor of a launch; all fields have 8 bytes, so that the host can write them as int64.
struct Tensor {
  const u8* coded;           // a multiple of 16, like its room
  u8* elements;              // a multiple of 16
  Record* records;           // of all chunks
  u16* tables;               // [table_count, 256] frequencies of 12 bits
  u64* used;                 // coded bytes
  u64* error;                // lowest of chunk << 8 | Error; ~0: none
  u64 n;                     // elements
  u64 chunk_log2;
  u64 table_count;
  // Decoder: the chunks of the launch; elements begin with the first. Encoder: 0 and all.
  u64 first_chunk, last_chunk;
  // Items of the launch that belong to the tensors before it; the last two for the encoder.
  u64 first_tile, first_segment, first_status;
};

// Tensors of a launch: one by value, or many in device memory.
struct Tensors {
  const Tensor* many;
  u64 count;
  Tensor one;
};

// The tensor that has item `number` of the launch: the last whose first item is not above it.
template <u64 Tensor::*kFirst>
__device__ inline Tensor tensor_of(const Tensors& tensors, u64 number) {
  if (tensors.many == nullptr) return tensors.one;
  u64 low = 0, high = tensors.count;
  while (high - low > 1) {
    const u64 middle = (low + high) / 2;
    if (tensors.many[middle].*kFirst <= number) low = middle;
    else high = middle;
  }
  return tensors.many[low];
}

__device__ inline u64 padded(u64 bytes) { return (bytes + 15) & ~u64{15}; }

template <int kLayout, int kWidth>
struct Shape {
  static constexpr u32 planes = kLayout == kNibbles ? 2 : kWidth;
  // Bytes of a plane of n elements.
  __device__ static u32 plane_bytes(u32 n) { return kLayout == kNibbles ? (n + 1) / 2 : n; }
};

// Runs a kernel body for each layout and width that the device takes.
#define LATENTPACK_SHAPES(KERNEL)     \
  KERNEL(float2, kFloat, 2)           \
  KERNEL(float4, kFloat, 4)           \
  KERNEL(nibbles1, kNibbles, 1)       \
  KERNEL(bytes1, kBytePlanes, 1)      \
  KERNEL(bytes2, kBytePlanes, 2)
