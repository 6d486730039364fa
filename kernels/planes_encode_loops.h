// Plain loops of the plane encoder, compiled once per instruction set as planes_loops.h.

#include <algorithm>
#include <cstring>

#include "planes.h"
#if LATENTPACK_X86
#include <emmintrin.h>
#endif

namespace latentpack::planes {
namespace {

PLANES_TARGET inline void split_float2(const uint8_t* x, size_t n, uint8_t* e, uint8_t* r) {
  for (size_t i = 0; i < n; ++i) {
    uint16_t u;
    std::memcpy(&u, x + 2 * i, 2);
    e[i] = static_cast<uint8_t>(u >> 7);
    r[i] = static_cast<uint8_t>((u >> 8 & 0x80) | (u & 0x7F));
  }
}

PLANES_TARGET inline void split_float4(const uint8_t* x, size_t n, uint8_t* const* planes) {
  uint8_t *e = planes[0], *r = planes[1], *b1 = planes[2], *b0 = planes[3];
  for (size_t i = 0; i < n; ++i) {
    uint32_t u;
    std::memcpy(&u, x + 4 * i, 4);
    e[i] = static_cast<uint8_t>(u >> 23);
    r[i] = static_cast<uint8_t>((u >> 24 & 0x80) | (u >> 16 & 0x7F));
    b1[i] = static_cast<uint8_t>(u >> 8);
    b0[i] = static_cast<uint8_t>(u);
  }
}

template <int kWidth>
PLANES_TARGET inline void split_bytes(const uint8_t* x, size_t n, uint8_t* const* planes) {
  for (int p = 0; p < kWidth; ++p) {
    uint8_t* plane = planes[p];
    for (size_t i = 0; i < n; ++i) plane[i] = x[kWidth * i + (kWidth - 1 - p)];
  }
}

PLANES_TARGET inline void split_nibbles(const uint8_t* x, size_t n, uint8_t* e, uint8_t* r) {
  for (size_t i = 0; i < n / 2; ++i) {
    const unsigned a = x[2 * i], b = x[2 * i + 1];
    e[i] = static_cast<uint8_t>((a >> 3 & 15) | (b << 1 & 0xF0));
    r[i] = static_cast<uint8_t>((a >> 4 & 8) | (a & 7) | (b & 0x80) | (b << 4 & 0x70));
  }
  if (n % 2) {
    e[n / 2] = x[n - 1] >> 3 & 15;
    r[n / 2] = static_cast<uint8_t>((x[n - 1] >> 4 & 8) | (x[n - 1] & 7));
  }
}

[[maybe_unused]] PLANES_TARGET void split(const uint8_t* x, size_t n, int width, int layout,
                         uint8_t* const* planes) {
  if (layout == kNibbles) return split_nibbles(x, n, planes[0], planes[1]);
  if (layout == kFloat && width == 2) return split_float2(x, n, planes[0], planes[1]);
  if (layout == kFloat) return split_float4(x, n, planes);
  switch (width) {
    case 1: std::memcpy(planes[0], x, n); return;
    case 2: return split_bytes<2>(x, n, planes);
    case 4: return split_bytes<4>(x, n, planes);
    case 8: return split_bytes<8>(x, n, planes);
  }
  for (int p = 0; p < width; ++p)
    for (size_t i = 0; i < n; ++i) planes[p][i] = x[width * i + (width - 1 - p)];
}

// Elements are asked for so many bytes before they are read: the processor itself asks too late.
constexpr size_t kBefore = 8192;
[[maybe_unused]] inline void ask_before(const uint8_t* at, size_t bytes) {
#if defined(__GNUC__)
  for (size_t i = 0; i < bytes; i += kLine) __builtin_prefetch(at + kBefore + i, 0, 0);
#else
  (void)at, (void)bytes;
#endif
}

#if LATENTPACK_X86
// Past the caches in pieces of 16 bytes: what fills no line. A store that does not go past them
// would wait for its line, and all others behind it.
[[maybe_unused]] inline void stream_pieces(uint8_t* to, const uint8_t* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += kAlign)
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
}
// The same up to the first whole line; bytes done.
[[maybe_unused]] inline size_t stream_to_line(uint8_t* to, const uint8_t* from, size_t bytes) {
  const size_t start = std::min<size_t>(bytes, -reinterpret_cast<uintptr_t>(to) % kLine);
  stream_pieces(to, from, start);
  return start;
}
#endif

// `split_window` for elements [first, last); `found` positions are there already.
PLANES_TARGET inline size_t split_window_from(const uint8_t* x, size_t first, size_t last,
                                              int width, uint8_t top, uint8_t* pairs,
                                              uint8_t* const* planes, uint16_t* outside,
                                              size_t found, size_t limit) {
  constexpr size_t kPiece = 256;
  uint8_t exponents[kPiece], nibbles[kPiece];
  for (; first < last; first += kPiece) {
    const size_t n = std::min(kPiece, last - first);
    ask_before(x + width * first, width * n);
    if (width == 2) {
      split_float2(x + 2 * first, n, exponents, planes[1] + first);
    } else {
      uint8_t* const to[4] = {exponents, planes[1] + first, planes[2] + first, planes[3] + first};
      split_float4(x + 4 * first, n, to);
    }
    unsigned all = 0;
    for (size_t i = 0; i < n; ++i) {
      const auto distance = static_cast<uint8_t>(top - exponents[i]);
      const bool zero = exponents[i] == 0, far = distance > 14;
      nibbles[i] = far || zero ? uint8_t{15} : distance;
      all |= far && !zero;
    }
    uint8_t* to = pairs + first / 2;
    for (size_t i = 0; i < n / 2; ++i)
      to[i] = static_cast<uint8_t>(nibbles[2 * i] | nibbles[2 * i + 1] << 4);
    if (n % 2) to[n / 2] = nibbles[n - 1];
    for (size_t i = 0; all && i < n && found < limit; ++i)
      if (nibbles[i] == 15 && exponents[i]) outside[found++] = static_cast<uint16_t>(first + i);
  }
  return found;
}

[[maybe_unused]] PLANES_TARGET size_t split_window(const uint8_t* x, size_t n, int width, uint8_t top,
                                  uint8_t* pairs, uint8_t* const* planes, uint16_t* outside,
                                  size_t limit) {
  return split_window_from(x, 0, n, width, top, pairs, planes, outside, 0, limit);
}

// Notes that `symbols[i]`, of frequency 0, is coded as another; what is found then.
inline size_t replace_rare(const Table& table, uint8_t* symbols, size_t i, uint16_t* at,
                           uint8_t* old, size_t found, size_t limit) {
  if (found < limit) {
    at[found] = static_cast<uint16_t>(i);
    old[found++] = symbols[i];
  }
  symbols[i] = table.instead[symbols[i]];
  return found;
}

}  // namespace
}  // namespace latentpack::planes
