// Plain loops of the plane decoder, compiled once per instruction set: the includer defines
// PLANES_TARGET (a target attribute or nothing) and the compiler vectorises for it. Everything
// is in an unnamed namespace, so that no file gets another's version.

#include <algorithm>
#include <cstring>

#include "planes.h"

namespace latentpack::planes {
namespace {

PLANES_TARGET inline void join_float2(const uint8_t* e, const uint8_t* r, size_t n, uint8_t* x) {
  for (size_t i = 0; i < n; ++i) {
    const auto u = static_cast<uint16_t>(e[i] << 7 | (r[i] & 0x80) << 8 | (r[i] & 0x7F));
    std::memcpy(x + 2 * i, &u, 2);
  }
}

PLANES_TARGET inline void join_float4(const uint8_t* const* planes, size_t n, uint8_t* x) {
  const uint8_t *e = planes[0], *r = planes[1], *b1 = planes[2], *b0 = planes[3];
  for (size_t i = 0; i < n; ++i) {
    const uint32_t u = uint32_t{e[i]} << 23 | (r[i] & 0x80u) << 24 | (r[i] & 0x7Fu) << 16 |
                       uint32_t{b1[i]} << 8 | b0[i];
    std::memcpy(x + 4 * i, &u, 4);
  }
}

PLANES_TARGET inline void join_bytes2(const uint8_t* const* planes, size_t n, uint8_t* x) {
  const uint8_t *b1 = planes[0], *b0 = planes[1];
  for (size_t i = 0; i < n; ++i) {
    const auto u = static_cast<uint16_t>(b1[i] << 8 | b0[i]);
    std::memcpy(x + 2 * i, &u, 2);
  }
}

PLANES_TARGET inline void join_bytes4(const uint8_t* const* planes, size_t n, uint8_t* x) {
  const uint8_t *b3 = planes[0], *b2 = planes[1], *b1 = planes[2], *b0 = planes[3];
  for (size_t i = 0; i < n; ++i) {
    const uint32_t u =
        uint32_t{b3[i]} << 24 | uint32_t{b2[i]} << 16 | uint32_t{b1[i]} << 8 | b0[i];
    std::memcpy(x + 4 * i, &u, 4);
  }
}

PLANES_TARGET inline void join_bytes8(const uint8_t* const* planes, size_t n, uint8_t* x) {
  for (size_t i = 0; i < n; ++i) {
    uint64_t u = 0;
    for (int p = 0; p < 8; ++p) u = u << 8 | planes[p][i];
    std::memcpy(x + 8 * i, &u, 8);
  }
}

PLANES_TARGET inline void join_nibbles(const uint8_t* e, const uint8_t* r, size_t n, uint8_t* x) {
  for (size_t i = 0; i < n / 2; ++i) {
    const unsigned a = e[i], b = r[i];
    x[2 * i] = static_cast<uint8_t>((b << 4 & 0x80) | (a << 3 & 0x78) | (b & 7));
    x[2 * i + 1] = static_cast<uint8_t>((b & 0x80) | (a >> 1 & 0x78) | (b >> 4 & 7));
  }
  if (n % 2) {
    const unsigned a = e[n / 2], b = r[n / 2];
    x[n - 1] = static_cast<uint8_t>((b << 4 & 0x80) | (a << 3 & 0x78) | (b & 7));
  }
}

PLANES_TARGET void join(const uint8_t* const* planes, size_t n, int width, int layout,
                        uint8_t* x) {
  if (layout == kNibbles) return join_nibbles(planes[0], planes[1], n, x);
  if (layout == kFloat && width == 2) return join_float2(planes[0], planes[1], n, x);
  if (layout == kFloat) return join_float4(planes, n, x);
  switch (width) {
    case 1: std::memcpy(x, planes[0], n); return;
    case 2: return join_bytes2(planes, n, x);
    case 4: return join_bytes4(planes, n, x);
    case 8: return join_bytes8(planes, n, x);
  }
  for (int p = 0; p < width; ++p)
    for (size_t i = 0; i < n; ++i) x[width * i + (width - 1 - p)] = planes[p][i];
}

inline uint8_t exponent_of(unsigned nibble, uint8_t top) {
  return static_cast<uint8_t>(nibble == 15 ? 0 : top - nibble);
}

PLANES_TARGET void from_nibbles(const uint8_t* pairs, size_t m, uint8_t top, uint8_t* exponents) {
  for (size_t i = 0; i < m / 2; ++i) {
    const uint8_t a = pairs[i] & 15, b = pairs[i] >> 4;
    exponents[2 * i] = a == 15 ? uint8_t{0} : static_cast<uint8_t>(top - a);
    exponents[2 * i + 1] = b == 15 ? uint8_t{0} : static_cast<uint8_t>(top - b);
  }
  if (m % 2) exponents[m - 1] = exponent_of(pairs[m / 2] & 15, top);
}

// Exponents of the window's nibbles, as they stand in a bf16.
inline void window_table(uint8_t top, uint16_t* shifted) {
  for (unsigned nibble = 0; nibble < 16; ++nibble)
    shifted[nibble] = static_cast<uint16_t>(exponent_of(nibble, top) << 7);
}

}  // namespace
}  // namespace latentpack::planes
