// Plain loops of the plane encoder, compiled once per instruction set as planes_loops.h.

#include <algorithm>
#include <cstring>

#include "planes.h"

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

PLANES_TARGET void split(const uint8_t* x, size_t n, int width, int layout,
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

}  // namespace
}  // namespace latentpack::planes
