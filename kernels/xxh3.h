// XXH3, 64 bits, seed 0 (the published algorithm of the xxHash family), for chunk checksums.
//
// Inputs over 240 bytes are folded in stripes of 64 bytes by eight 64-bit accumulators; that
// loop has AVX2 and AVX-512 twins chosen by the caller's backend level. All give one value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "rans.h"
#if LATENTPACK_X86
#include <immintrin.h>
#endif

namespace latentpack::xxh3 {

constexpr uint64_t PRIME32_1 = 0x9E3779B1U, PRIME32_2 = 0x85EBCA77U, PRIME32_3 = 0xC2B2AE3DU;
constexpr uint64_t PRIME64_1 = 0x9E3779B185EBCA87ULL, PRIME64_2 = 0xC2B2AE3D27D4EB4FULL;
constexpr uint64_t PRIME64_3 = 0x165667B19E3779F9ULL, PRIME64_4 = 0x85EBCA77C2B2AE63ULL;
constexpr uint64_t PRIME64_5 = 0x27D4EB2F165667C5ULL;
constexpr uint64_t PRIME_MX1 = 0x165667919E3779F9ULL, PRIME_MX2 = 0x9FB21C651E98DF25ULL;

constexpr size_t SECRET_BYTES = 192, STRIPE = 64, SECRET_STEP = 8;
constexpr size_t STRIPES_PER_BLOCK = (SECRET_BYTES - STRIPE) / SECRET_STEP;
constexpr size_t BLOCK = STRIPE * STRIPES_PER_BLOCK;

alignas(64) constexpr unsigned char SECRET[SECRET_BYTES] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

inline uint64_t read64(const void* p) {
  uint64_t v;
  std::memcpy(&v, p, 8);
  return v;
}
inline uint32_t read32(const void* p) {
  uint32_t v;
  std::memcpy(&v, p, 4);
  return v;
}
inline uint64_t swap64(uint64_t v) {
  v = (v & 0x00FF00FF00FF00FFULL) << 8 | (v >> 8 & 0x00FF00FF00FF00FFULL);
  v = (v & 0x0000FFFF0000FFFFULL) << 16 | (v >> 16 & 0x0000FFFF0000FFFFULL);
  return v << 32 | v >> 32;
}
inline uint64_t rotate(uint64_t v, int n) { return v << n | v >> (64 - n); }

// Low and high halves of a 64 x 64 product, folded by exclusive or.
inline uint64_t fold(uint64_t a, uint64_t b) {
#if defined(__SIZEOF_INT128__)
  const unsigned __int128 p = static_cast<unsigned __int128>(a) * b;
  return uint64_t(p) ^ uint64_t(p >> 64);
#else
  const uint64_t ll = (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF), hl = (a >> 32) * (b & 0xFFFFFFFF);
  const uint64_t lh = (a & 0xFFFFFFFF) * (b >> 32), hh = (a >> 32) * (b >> 32);
  const uint64_t cross = (ll >> 32) + (hl & 0xFFFFFFFF) + lh;
  return (cross << 32 | (ll & 0xFFFFFFFF)) ^ ((hl >> 32) + (cross >> 32) + hh);
#endif
}

inline uint64_t avalanche(uint64_t h) {
  h = (h ^ h >> 37) * PRIME_MX1;
  return h ^ h >> 32;
}
inline uint64_t avalanche64(uint64_t h) {
  h = (h ^ h >> 33) * PRIME64_2;
  h = (h ^ h >> 29) * PRIME64_3;
  return h ^ h >> 32;
}
inline uint64_t mix16(const unsigned char* in, const unsigned char* secret) {
  return fold(read64(in) ^ read64(secret), read64(in + 8) ^ read64(secret + 8));
}

inline uint64_t short16(const unsigned char* in, size_t n) {
  if (n > 8) {
    const uint64_t lo = read64(in) ^ (read64(SECRET + 24) ^ read64(SECRET + 32));
    const uint64_t hi = read64(in + n - 8) ^ (read64(SECRET + 40) ^ read64(SECRET + 48));
    return avalanche(n + swap64(lo) + hi + fold(lo, hi));
  }
  if (n >= 4) {
    uint64_t h = (read32(in + n - 4) + (uint64_t(read32(in)) << 32));
    h ^= read64(SECRET + 8) ^ read64(SECRET + 16);
    h ^= rotate(h, 49) ^ rotate(h, 24);
    h *= PRIME_MX2;
    h ^= (h >> 35) + n;
    h *= PRIME_MX2;
    return h ^ h >> 28;
  }
  if (n > 0) {
    const uint32_t v = uint32_t(in[0]) << 16 | uint32_t(in[n >> 1]) << 24 | in[n - 1] |
                       uint32_t(n) << 8;
    return avalanche64(v ^ uint64_t(read32(SECRET) ^ read32(SECRET + 4)));
  }
  return avalanche64(read64(SECRET + 56) ^ read64(SECRET + 64));
}

inline uint64_t medium240(const unsigned char* in, size_t n) {
  uint64_t h = n * PRIME64_1;
  if (n <= 128) {
    for (size_t i = (n - 1) / 32 + 1; i-- > 0;)
      h += mix16(in + 16 * i, SECRET + 32 * i) +
           mix16(in + n - 16 * (i + 1), SECRET + 32 * i + 16);
    return avalanche(h);
  }
  for (size_t i = 0; i < 8; ++i) h += mix16(in + 16 * i, SECRET + 16 * i);
  h = avalanche(h);
  for (size_t i = 8; i < n / 16; ++i) h += mix16(in + 16 * i, SECRET + 16 * (i - 8) + 3);
  return avalanche(h + mix16(in + n - 16, SECRET + 136 - 17));
}

// Folds `count` stripes at `in` into acc[8]; stripe s uses the secret from byte 8 s on.
inline void stripes_scalar(uint64_t* acc, const unsigned char* in, size_t count,
                           const unsigned char* secret) {
  for (size_t s = 0; s < count; ++s)
    for (size_t i = 0; i < 8; ++i) {
      const uint64_t v = read64(in + STRIPE * s + 8 * i);
      const uint64_t k = v ^ read64(secret + SECRET_STEP * s + 8 * i);
      acc[i ^ 1] += v;
      acc[i] += (k & 0xFFFFFFFF) * (k >> 32);
    }
}
inline void scramble(uint64_t* acc) {
  for (size_t i = 0; i < 8; ++i) {
    acc[i] ^= acc[i] >> 47 ^ read64(SECRET + SECRET_BYTES - STRIPE + 8 * i);
    acc[i] *= PRIME32_1;
  }
}

#if LATENTPACK_X86
__attribute__((target("avx2"))) inline void stripes_avx2(uint64_t* acc, const unsigned char* in,
                                                         size_t count,
                                                         const unsigned char* secret) {
  __m256i a = _mm256_loadu_si256(reinterpret_cast<__m256i*>(acc));
  __m256i b = _mm256_loadu_si256(reinterpret_cast<__m256i*>(acc + 4));
  for (size_t s = 0; s < count; ++s) {
    const auto* p = reinterpret_cast<const __m256i*>(in + STRIPE * s);
    const auto* q = reinterpret_cast<const __m256i*>(secret + SECRET_STEP * s);
    const __m256i v0 = _mm256_loadu_si256(p), v1 = _mm256_loadu_si256(p + 1);
    const __m256i k0 = _mm256_xor_si256(v0, _mm256_loadu_si256(q));
    const __m256i k1 = _mm256_xor_si256(v1, _mm256_loadu_si256(q + 1));
    a = _mm256_add_epi64(a, _mm256_mul_epu32(k0, _mm256_srli_epi64(k0, 32)));
    b = _mm256_add_epi64(b, _mm256_mul_epu32(k1, _mm256_srli_epi64(k1, 32)));
    a = _mm256_add_epi64(a, _mm256_shuffle_epi32(v0, 0x4E));
    b = _mm256_add_epi64(b, _mm256_shuffle_epi32(v1, 0x4E));
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(acc), a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(acc + 4), b);
}
__attribute__((target("avx512f"))) inline void stripes_avx512(uint64_t* acc,
                                                              const unsigned char* in,
                                                              size_t count,
                                                              const unsigned char* secret) {
  __m512i a = _mm512_loadu_si512(acc);
  __m512i b = _mm512_setzero_si512();  // a second sum: shorter dependency chains
  for (size_t s = 0; s < count; ++s) {
    const __m512i v = _mm512_loadu_si512(in + STRIPE * s);
    const __m512i k = _mm512_xor_si512(v, _mm512_loadu_si512(secret + SECRET_STEP * s));
    a = _mm512_add_epi64(a, _mm512_mul_epu32(k, _mm512_srli_epi64(k, 32)));
    b = _mm512_add_epi64(b, _mm512_shuffle_epi32(v, static_cast<_MM_PERM_ENUM>(0x4E)));
  }
  _mm512_storeu_si512(acc, _mm512_add_epi64(a, b));
}
// A whole block: its stripes and the scrambling after them.
__attribute__((target("avx512f"))) inline void block_avx512(uint64_t* acc,
                                                            const unsigned char* in) {
  stripes_avx512(acc, in, STRIPES_PER_BLOCK, SECRET);
  __m512i a = _mm512_loadu_si512(acc);
  const __m512i secret = _mm512_loadu_si512(SECRET + SECRET_BYTES - STRIPE);
  const __m512i prime = _mm512_set1_epi64(PRIME32_1);
  a = _mm512_xor_si512(a, _mm512_xor_si512(_mm512_srli_epi64(a, 47), secret));
  const __m512i high = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), prime);
  a = _mm512_add_epi64(_mm512_mul_epu32(a, prime), _mm512_slli_epi64(high, 32));
  _mm512_storeu_si512(acc, a);
}
#endif

inline void stripes(uint64_t* acc, const unsigned char* in, size_t count,
                    const unsigned char* secret, Isa isa) {
#if LATENTPACK_X86
  if (isa >= Isa::kAvx512) return stripes_avx512(acc, in, count, secret);
  if (isa >= Isa::kAvx2) return stripes_avx2(acc, in, count, secret);
#endif
  (void)isa;
  stripes_scalar(acc, in, count, secret);
}

inline void block(uint64_t* acc, const unsigned char* in, Isa isa) {
#if LATENTPACK_X86
  if (isa >= Isa::kAvx512) return block_avx512(acc, in);
#endif
  stripes(acc, in, STRIPES_PER_BLOCK, SECRET, isa);
  scramble(acc);
}

// `before(end)` is called before bytes up to `end` are read, block by block.
template <typename Before>
uint64_t hash_long(const unsigned char* in, size_t n, Isa isa, const Before& before) {
  alignas(64) uint64_t acc[8] = {PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3,
                                 PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1};
  const size_t blocks = (n - 1) / BLOCK;
  for (size_t b = 0; b < blocks; ++b) {
    before((b + 1) * BLOCK);
    block(acc, in + b * BLOCK, isa);
  }
  const size_t rest = (n - 1 - blocks * BLOCK) / STRIPE;
  stripes(acc, in + blocks * BLOCK, rest, SECRET, isa);
  stripes(acc, in + n - STRIPE, 1, SECRET + SECRET_BYTES - STRIPE - 7, isa);
  uint64_t h = uint64_t(n) * PRIME64_1;
  for (size_t i = 0; i < 4; ++i)
    h += fold(acc[2 * i] ^ read64(SECRET + 11 + 16 * i),
              acc[2 * i + 1] ^ read64(SECRET + 11 + 16 * i + 8));
  return avalanche(h);
}

// XXH3-64 with seed 0 of n bytes at data (any alignment).
template <typename Before>
uint64_t hash64(const void* data, size_t n, Isa isa, const Before& before) {
  const unsigned char* in = static_cast<const unsigned char*>(data);
  if (n <= 16) return short16(in, n);
  if (n <= 240) return medium240(in, n);
  return hash_long(in, n, isa, before);
}
inline uint64_t hash64(const void* data, size_t n, Isa isa) {
  return hash64(data, n, isa, [](size_t) {});
}

}  // namespace latentpack::xxh3
