// A CUDA device on the CPU: runs the very .cu files of kernels/ in tests, one thread at a time.
//
// From a test (tests/cuda_on_cpu.py has the Python side):
//
//     from latentpack.tests import cuda_on_cpu
//     module = cuda_on_cpu.load("planes.cu")        # g++; skips the test if there is none
//     module.launch("kernel", grid, block, [array, ctypes.c_int64(n)], shared=4096)
//
// `load` compiles kernels/NAME.cu with this header before it. `launch` is that of kernels/cuda.py:
// arrays are NumPy arrays or CPU tensors (a pointer to their first element), scalars are ctypes.
// To test code that launches by itself, put the emulated device in place of the real one:
//
//     monkeypatch.setattr(cuda, "load", lambda name, device: cuda_on_cpu.load(name))
//
// What a .cu file may use: everything below, `extern "C" __global__ void name(...)` kernels outside
// of namespaces (macros may make them), one `extern __shared__ type name[];` outside of namespaces, static __shared__
// arrays. Inline PTX goes between #ifdef __CUDA_ARCH__ and #else with a twin in plain C++. Include
// nothing but "*.cuh" of the same folder; there is no standard library on a device.
//
// Each thread of a block is a fiber that runs until it needs others: a barrier, a warp
// intrinsic, __nanosleep. Blocks run one after another, by ascending number, so that a block that
// waits for one with a smaller number (or a smaller ticket of a counter) finds it done. A loop that
// waits must hold one of those three. Nothing is in lockstep: a lane that reads what another wrote
// without a __syncwarp between reads old values in one of the two orders, Module.order = "up" or
// "down". Lanes that meet at different intrinsics, with different masks, or with exited lanes,
// and blocks in which nobody can go on, are errors. So is dynamic shared memory that is touched
// beyond its size; it holds noise when a block starts.
#pragma once

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__ __attribute__((used))  // by which cuda_on_cpu.py knows a kernel
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ thread_local  // static in a function, and may be declared extern; one OS thread

using std::max;
using std::min;

#define VECTOR(T, name)                                                             \
  struct name##2 { T x, y; };                                                       \
  struct name##3 { T x, y, z; };                                                    \
  struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 { T x, y, z, w; }; \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                        \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTOR(unsigned char, uchar)
VECTOR(short, short)
VECTOR(unsigned short, ushort)
VECTOR(int, int)
VECTOR(unsigned, uint)
VECTOR(float, float)
VECTOR(unsigned long long, ulonglong)
#undef VECTOR
struct dim3 { unsigned x = 1, y = 1, z = 1; };

inline thread_local uint3 threadIdx, blockIdx;
inline thread_local dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace cuda_on_cpu {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStack = 512 << 10;
#else
constexpr size_t kStack = 64 << 10;
#endif
constexpr unsigned char kNoise = 0xA5;
constexpr long kPatience = 200 * 1000 * 1000;  // switches of a block without an end

enum Kind { kNothing, kBarrier, kSleep, kSync, kBallot, kShuffle, kMatch, kAdd, kMin, kMax, kAnd, kOr };

struct Lane {
  char* stack = nullptr;
  ucontext_t start;
  jmp_buf resume;
  bool started, done;
  Kind wants;  // what it waits for
  uint32_t mask;
  uint64_t value;  // what it brings
  int source;      // of a shuffle
  uint64_t result;
  uint3 thread;
};

struct Device {
  std::vector<Lane> lanes;
  unsigned count = 0, left = 0, current = 0;
  bool upward = true;
  jmp_buf scheduler;
  void (*body)(void*);
  void* arguments;
  std::string error;
};
inline Device device;

inline void to_scheduler() { _longjmp(device.scheduler, 1); }

[[noreturn]] inline void fail(const char* what) {
  const Lane& lane = device.lanes[device.current];
  char text[256];
  snprintf(text, sizeof text, "block (%u, %u, %u), thread (%u, %u, %u): %s", blockIdx.x, blockIdx.y,
           blockIdx.z, lane.thread.x, lane.thread.y, lane.thread.z, what);
  if (device.error.empty()) device.error = text;
  to_scheduler();
  __builtin_unreachable();
}

__attribute__((noinline)) inline void wait() {
  if (_setjmp(device.lanes[device.current].resume) == 0) to_scheduler();
}

inline void open_barrier() {
  unsigned there = 0;
  uint64_t number = 0, all = 1, any = 0;
  for (unsigned i = 0; i < device.count; ++i) {
    const Lane& lane = device.lanes[i];
    if (lane.done || lane.wants != kBarrier) continue;
    ++there;
    number += lane.value != 0;
    all &= lane.value != 0;
    any |= lane.value != 0;
  }
  if (there == 0 || there != device.left) return;
  for (unsigned i = 0; i < device.count; ++i) {
    Lane& lane = device.lanes[i];
    lane.result = number | all << 32 | any << 33;
    lane.wants = kNothing;
  }
}

inline uint64_t barrier(uint64_t value) {
  Lane& me = device.lanes[device.current];
  me.value = value;
  me.wants = kBarrier;
  open_barrier();
  if (me.wants != kNothing) wait();
  return me.result;
}

inline uint64_t reduce(Kind kind, uint64_t a, uint64_t b) {
  switch (kind) {
    case kAdd: return a + b;
    case kMin: return std::min(a, b);
    case kMax: return std::max(a, b);
    case kAnd: return a & b;
    default: return a | b;
  }
}

// The last lane of a warp intrinsic finds the results of all.
inline void complete(Kind kind, uint32_t mask, Lane* warp) {
  uint64_t all = 0;
  bool first = true;
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    const Lane& lane = warp[i];
    const uint64_t value = kind == kBallot ? uint64_t{lane.value != 0} << i : lane.value;
    all = first ? value : reduce(kind == kBallot ? kOr : kind, all, value);
    first = false;
  }
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    Lane& lane = warp[i];
    lane.result = all;
    if (kind == kShuffle) lane.result = mask >> lane.source & 1 ? warp[lane.source].value : 0xDEADBEEFDEADBEEF;
    if (kind == kMatch) {
      lane.result = 0;
      for (int j = 0; j < 32; ++j)
        if (mask >> j & 1 && warp[j].value == lane.value) lane.result |= 1u << j;
    }
  }
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1) warp[i].wants = kNothing;
}

inline uint64_t together(Kind kind, uint32_t mask, uint64_t value, int source = 0) {
  const unsigned first = device.current & ~31u, own = device.current & 31;
  Lane* warp = &device.lanes[first];
  Lane& me = warp[own];
  if (!(mask >> own & 1)) fail("a warp intrinsic with a mask without the caller");
  me.mask = mask;
  me.value = value;
  me.source = source;
  me.wants = kind;
  bool all = true;
  for (unsigned i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    if (first + i >= device.count || warp[i].done) fail("a warp intrinsic with lanes that are gone");
    if (warp[i].wants != kind) {
      all = false;
      if (warp[i].wants != kNothing && warp[i].wants != kSleep && warp[i].wants != kBarrier && warp[i].mask >> own & 1)
        fail("lanes of a mask meet at different warp intrinsics");
    } else if (warp[i].mask != mask) {
      fail("lanes of a warp intrinsic have different masks");
    }
  }
  if (all) complete(kind, mask, warp);
  if (me.wants != kNothing) wait();
  return me.result;
}

inline void body_of_a_lane() {
  device.body(device.arguments);
  Lane& me = device.lanes[device.current];
  me.done = true;
  --device.left;
  open_barrier();
  to_scheduler();
}

inline void start(Lane& lane) {
  lane.started = true;
  getcontext(&lane.start);
  lane.start.uc_stack.ss_sp = lane.stack;
  lane.start.uc_stack.ss_size = kStack;
  lane.start.uc_link = nullptr;
  makecontext(&lane.start, body_of_a_lane, 0);
  setcontext(&lane.start);
}

inline void run_lane(unsigned i) {
  Lane& lane = device.lanes[i];
  device.current = i;
  threadIdx = lane.thread;
  if (_setjmp(device.scheduler)) return;
  if (lane.started) _longjmp(lane.resume, 1);
  start(lane);
}

inline void run_block() {
  device.left = device.count;
  for (unsigned i = 0; i < device.count; ++i) {
    Lane& lane = device.lanes[i];
    lane.started = lane.done = false;
    lane.wants = kNothing;
  }
  for (long switches = 0; device.left && device.error.empty();) {
    const long before = switches;
    bool slept = false;
    for (unsigned k = 0; k < device.count && device.error.empty(); ++k) {
      const unsigned i = device.upward ? k : device.count - 1 - k;
      Lane& lane = device.lanes[i];
      if (lane.done || (lane.wants != kNothing && lane.wants != kSleep)) continue;
      slept |= lane.wants == kSleep;
      lane.wants = kNothing;
      run_lane(i);
      ++switches;
    }
    if (!device.error.empty()) return;
    if (switches == before || switches > kPatience) {
      for (unsigned i = 0; i < device.count; ++i)
        if (!device.lanes[i].done) device.current = i;
      if (_setjmp(device.scheduler) == 0)
        fail(switches == before ? "nobody can go on: the others wait for it elsewhere or are gone"
                                : "it waits for ever");
    }
  }
}

inline void make_lanes(unsigned count, const dim3& block) {
  while (device.lanes.size() < (count + 31) / 32 * 32) {
    Lane lane;
    void* stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    lane.stack = static_cast<char*>(stack);
    mprotect(stack, 4096, PROT_NONE);  // a stack that overflows is found
    device.lanes.push_back(lane);
  }
  device.count = count;
  for (unsigned i = 0; i < count; ++i)
    device.lanes[i].thread = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_reference_t<A>*>(arguments[I])...);
}

// Runs a kernel; an error's text, or nullptr. `room` is the memory of `extern __shared__`.
template <class... A>
const char* launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block, size_t shared,
                   void** arguments, int upward, unsigned char* room, size_t room_size) {
  static thread_local std::pair<void (*)(A...), void**> call_of;
  call_of = {kernel, arguments};
  device.body = [](void*) { call(call_of.first, call_of.second, std::index_sequence_for<A...>{}); };
  device.error.clear();
  device.upward = upward;
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  const unsigned count = block[0] * block[1] * block[2];
  if (count == 0 || count > 1024) return "a block has 1 to 1024 threads";
  if (shared > 227 << 10) return "a block has at most 227 KiB of shared memory";
  make_lanes(count, blockDim);
  for (unsigned z = 0; z < grid[2]; ++z)
    for (unsigned y = 0; y < grid[1]; ++y)
      for (unsigned x = 0; x < grid[0]; ++x) {
        blockIdx = {x, y, z};
        const size_t watched = std::min(room_size, shared + 4096);
        memset(room, kNoise, watched);
        run_block();
        for (size_t i = shared; i < watched && device.error.empty(); ++i)
          if (room[i] != kNoise) device.error = "dynamic shared memory is written beyond its size";
        if (!device.error.empty()) return device.error.c_str();
      }
  return nullptr;
}

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8, "at most 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T value;
  memcpy(&value, &bits, sizeof(T));
  return value;
}
template <class T>
T shuffle(unsigned mask, T value, int source, int lane, int width) {
  const int first = lane / width * width;
  const bool inside = source >= first && source < first + width;
  return from_bits<T>(together(kShuffle, mask, to_bits(value), inside ? source : lane));
}
inline int own_lane() { return static_cast<int>(device.current & 31); }

}  // namespace cuda_on_cpu

// Barriers and fences.
inline void __syncthreads() { cuda_on_cpu::barrier(0); }
inline int __syncthreads_count(int p) { return static_cast<int>(cuda_on_cpu::barrier(p != 0)); }
inline int __syncthreads_and(int p) { return cuda_on_cpu::barrier(p != 0) >> 32 & 1; }
inline int __syncthreads_or(int p) { return cuda_on_cpu::barrier(p != 0) >> 33 & 1; }
inline void __syncwarp(unsigned mask = ~0u) { cuda_on_cpu::together(cuda_on_cpu::kSync, mask, 0); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) {
  cuda_on_cpu::device.lanes[cuda_on_cpu::device.current].wants = cuda_on_cpu::kSleep;
  cuda_on_cpu::wait();
}

// Warp intrinsics.
inline unsigned __ballot_sync(unsigned mask, int p) {
  return static_cast<unsigned>(cuda_on_cpu::together(cuda_on_cpu::kBallot, mask, p != 0));
}
inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, p) == mask; }
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int lane = cuda_on_cpu::own_lane();
  return cuda_on_cpu::shuffle(mask, value, lane / width * width + (source & (width - 1)), lane, width);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = cuda_on_cpu::own_lane();
  return cuda_on_cpu::shuffle(mask, value, lane - static_cast<int>(delta), lane, width);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = cuda_on_cpu::own_lane();
  return cuda_on_cpu::shuffle(mask, value, lane + static_cast<int>(delta), lane, width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const int lane = cuda_on_cpu::own_lane();
  return cuda_on_cpu::shuffle(mask, value, lane ^ bits, lane, width);
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value) {
  return static_cast<unsigned>(cuda_on_cpu::together(cuda_on_cpu::kMatch, mask, cuda_on_cpu::to_bits(value)));
}
#define REDUCE(name, kind)                                                             \
  inline unsigned name(unsigned mask, unsigned value) {                                \
    return static_cast<unsigned>(cuda_on_cpu::together(cuda_on_cpu::kind, mask, value)); \
  }
REDUCE(__reduce_add_sync, kAdd)
REDUCE(__reduce_min_sync, kMin)
REDUCE(__reduce_max_sync, kMax)
REDUCE(__reduce_and_sync, kAnd)
REDUCE(__reduce_or_sync, kOr)
#undef REDUCE

// Bits and arithmetic.
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(int v) { return v ? __builtin_clz(static_cast<unsigned>(v)) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll(static_cast<unsigned long long>(v)) : 64; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline unsigned __brev(unsigned v) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= (v >> i & 1) << (31 - i);
  return r;
}
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned n) {
  return static_cast<unsigned>((uint64_t{hi} << 32 | lo) >> (n & 31));
}
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned n) {
  return static_cast<unsigned>((uint64_t{hi} << 32 | lo) << (n & 31) >> 32);
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t both = uint64_t{b} << 32 | a;
  unsigned r = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned s = selector >> 4 * i & 15;
    unsigned byte = static_cast<unsigned>(both >> 8 * (s & 7)) & 255;
    if (s & 8) byte = byte & 128 ? 255 : 0;
    r |= byte << 8 * i;
  }
  return r;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline unsigned __float_as_uint(float v) { return cuda_on_cpu::from_bits<unsigned>(cuda_on_cpu::to_bits(v)); }
inline int __float_as_int(float v) { return cuda_on_cpu::from_bits<int>(cuda_on_cpu::to_bits(v)); }
inline float __uint_as_float(unsigned v) { return cuda_on_cpu::from_bits<float>(v); }
inline float __int_as_float(int v) { return cuda_on_cpu::from_bits<float>(static_cast<unsigned>(v)); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1 / a; }
inline int __float2int_rn(float v) { return static_cast<int>(rintf(v)); }
inline int __float2int_rd(float v) { return static_cast<int>(floorf(v)); }
inline int __float2int_rz(float v) { return static_cast<int>(v); }
inline float __int2float_rn(int v) { return static_cast<float>(v); }
inline float __uint2float_rn(unsigned v) { return static_cast<float>(v); }

// Memory.
template <class T>
T __ldg(const T* at) { return *at; }
template <class T>
T __ldcs(const T* at) { return *at; }
template <class T>
T __ldcg(const T* at) { return *at; }
template <class T>
void __stcs(T* at, T value) { *at = value; }
template <class T>
void __stcg(T* at, T value) { *at = value; }
#define ATOMIC(name, expression)                    \
  template <class T>                                \
  T name(T* at, std::common_type_t<T> value) {      \
    const T old = *at;                              \
    *at = expression;                               \
    return old;                                     \
  }
ATOMIC(atomicAdd, old + value)
ATOMIC(atomicSub, old - value)
ATOMIC(atomicMin, std::min(old, value))
ATOMIC(atomicMax, std::max(old, value))
ATOMIC(atomicAnd, old & value)
ATOMIC(atomicOr, old | value)
ATOMIC(atomicXor, old ^ value)
ATOMIC(atomicExch, value)
#undef ATOMIC
template <class T>
T atomicCAS(T* at, std::common_type_t<T> compare, std::common_type_t<T> value) {
  const T old = *at;
  if (old == compare) *at = value;
  return old;
}
