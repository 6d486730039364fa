// Filters and distances, compiled once per instruction set: see motion_vector.h.
#include "motion.h"
#include "motion_vector.h"

namespace latentpack::motion {
namespace {

template <int kLanes>
struct Sum {
  typename Vectors<kLanes>::I32 low, high;
};

template <int kLanes>
MOTION_INLINE typename Vectors<kLanes>::I16 widened(const uint8_t* at, int up) {
  using I16 = typename Vectors<kLanes>::I16;
  return __builtin_convertvector(load<typename Vectors<kLanes>::U8>(at), I16) << up;
}

template <int kLanes>
MOTION_INLINE typename Vectors<kLanes>::I16 widened(const int16_t* at, int up) {
  return load<typename Vectors<kLanes>::I16>(at) << up;
}

// Two taps in 32 bits, in every lane.
template <int kLanes>
MOTION_INLINE typename Vectors<kLanes>::I16 pair(const int16_t* taps) {
  int32_t both;
  std::memcpy(&both, taps, sizeof both);
  return (typename Vectors<kLanes>::I16)(typename Vectors<kLanes>::I32{} + both);
}

// (sum of taps times inputs + 32) >> 6, of kTaps inputs that `input` gives.
template <int kLanes, int kTaps, typename Input>
MOTION_INLINE typename Vectors<kLanes>::I16 filtered(const int16_t* taps, const Input& input) {
  Sum<kLanes> sum{};
  sum.low += 32;
  sum.high += 32;
#pragma GCC unroll 4
  for (int k = 0; k < kTaps; k += 2) {
    const auto a = input(k), b = input(k + 1), both = pair<kLanes>(taps + k);
    sum.low += madd(low16(a, b), both);
    sum.high += madd(high16(a, b), both);
  }
  return narrow(sum.low >> 6, sum.high >> 6);
}

template <int kLanes, int kTaps, typename T>
MOTION_INLINE void filter(const T* from, ptrdiff_t stride, int up, const Filter& f, int rows,
                          int columns, int16_t* to) {
  constexpr int kBefore = kTaps / 2 - 1;
  int16_t between[(kBlock + kTaps - 1) * kStrip];
  const int first = f.down ? -kBefore : 0, last = f.down ? rows + kTaps / 2 : rows;
  int16_t* const room = f.down ? between : to;
  for (int r = first; r < last; ++r) {
    const T* row = from + r * stride;
    int16_t* out = room + (r - first) * kStrip;
    for (int c = 0; c < columns; c += kLanes) {
      if (f.across) {
        store(out + c, filtered<kLanes, kTaps>(f.across, [&](int k) MOTION_TARGET {
                return widened<kLanes>(row + c + k - kBefore, up);
              }));
      } else {
        store(out + c, widened<kLanes>(row + c, up));
      }
    }
  }
  if (!f.down) return;
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; c += kLanes) {
      store(to + r * kStrip + c, filtered<kLanes, kTaps>(f.down, [&](int k) MOTION_TARGET {
              return load<typename Vectors<kLanes>::I16>(between + (r + k) * kStrip + c);
            }));
    }
  }
}

template <int kTaps, typename T>
MOTION_INLINE void filter_of(const T* from, ptrdiff_t stride, int up, const Filter& f, int rows,
                             int columns, int16_t* to) {
#if MOTION_LANES >= 32
  if (columns > 16) return filter<32, kTaps>(from, stride, up, f, rows, columns, to);
#endif
#if MOTION_LANES >= 16
  if (columns > 8) return filter<16, kTaps>(from, stride, up, f, rows, columns, to);
#endif
  filter<8, kTaps>(from, stride, up, f, rows, columns, to);
}

template <typename T>
MOTION_INLINE void filter_any(const T* from, ptrdiff_t stride, int up, const Filter& f, int rows,
                              int columns, int16_t* to) {
  if (f.taps == 8) filter_of<8>(from, stride, up, f, rows, columns, to);
  else if (f.taps == 4) filter_of<4>(from, stride, up, f, rows, columns, to);
  else filter_of<2>(from, stride, up, f, rows, columns, to);
}

MOTION_TARGET void filter_bytes(const uint8_t* from, ptrdiff_t stride, int up, const Filter& f,
                                int rows, int columns, int16_t* to) {
  filter_any(from, stride, up, f, rows, columns, to);
}

MOTION_TARGET void filter_words(const int16_t* from, ptrdiff_t stride, int up, const Filter& f,
                                int rows, int columns, int16_t* to) {
  filter_any(from, stride, up, f, rows, columns, to);
}

// Products and sums of floats are rounded one by one, in the order of the taps.
constexpr int kFloats = MOTION_LANES / 2;
typedef float F __attribute__((vector_size(4 * kFloats)));

template <int kTaps>
MOTION_INLINE void filter_floats_of(const float* from, ptrdiff_t stride, const Filter& f, int rows,
                                    int columns, float* to) {
  constexpr int kBefore = kTaps / 2 - 1;
  float between[(kBlock + kTaps - 1) * kStrip];
  const int first = f.down ? -kBefore : 0, last = f.down ? rows + kTaps / 2 : rows;
  float* const room = f.down ? between : to;
  for (int r = first; r < last; ++r) {
    const float* row = from + r * stride;
    for (int c = 0; c < columns; c += kFloats) {
      F sum{};
      if (f.across) {
#pragma GCC unroll 8
        for (int k = 0; k < kTaps; ++k)
          sum += (F{} + f.across[k] * (1.0f / 64)) * load<F>(row + c + k - kBefore);
      } else {
        sum = load<F>(row + c);
      }
      store(room + (r - first) * kStrip + c, sum);
    }
  }
  if (!f.down) return;
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; c += kFloats) {
      F sum{};
#pragma GCC unroll 8
      for (int k = 0; k < kTaps; ++k)
        sum += (F{} + f.down[k] * (1.0f / 64)) * load<F>(between + (r + k) * kStrip + c);
      store(to + r * kStrip + c, sum);
    }
  }
}

MOTION_TARGET void filter_floats(const float* from, ptrdiff_t stride, int, const Filter& f,
                                 int rows, int columns, float* to) {
  if (f.taps == 8) filter_floats_of<8>(from, stride, f, rows, columns, to);
  else if (f.taps == 4) filter_floats_of<4>(from, stride, f, rows, columns, to);
  else filter_floats_of<2>(from, stride, f, rows, columns, to);
}

MOTION_TARGET void to_bytes(const int16_t* from, int n, uint8_t* to) {
  for (int i = 0; i < n; ++i) {
    const int rounded = (from[i] + 32) >> 6;
    to[i] = static_cast<uint8_t>(rounded < 0 ? 0 : rounded > 255 ? 255 : rounded);
  }
}

// Row r of x less its prediction.
template <int kLanes>
MOTION_INLINE typename Vectors<kLanes>::I16 difference(const uint8_t* x, const uint8_t* a,
                                                       const uint8_t* b) {
  using U8 = typename Vectors<kLanes>::U8;
  using I16 = typename Vectors<kLanes>::I16;
  I16 p = __builtin_convertvector(load<U8>(a), I16);
  if (b) p = (p + __builtin_convertvector(load<U8>(b), I16) + 1) >> 1;
  return __builtin_convertvector(load<U8>(x), I16) - p;
}

template <typename V>
MOTION_INLINE void butterflies(V (&v)[8], int step) {
  for (int i = 0; i < 8; ++i) {
    if (i & step) continue;
    const V a = v[i], b = v[i + step];
    v[i] = a + b;
    v[i + step] = a - b;
  }
}

// 8 x 8 values, in every 8 lanes.
template <typename V>
MOTION_INLINE void transpose(V (&v)[8]) {
  const V a0 = low16(v[0], v[1]), a1 = high16(v[0], v[1]), a2 = low16(v[2], v[3]),
          a3 = high16(v[2], v[3]), a4 = low16(v[4], v[5]), a5 = high16(v[4], v[5]),
          a6 = low16(v[6], v[7]), a7 = high16(v[6], v[7]);
  const V b0 = low32(a0, a2), b1 = high32(a0, a2), b2 = low32(a1, a3), b3 = high32(a1, a3),
          b4 = low32(a4, a6), b5 = high32(a4, a6), b6 = low32(a5, a7), b7 = high32(a5, a7);
  v[0] = low64(b0, b4);
  v[1] = high64(b0, b4);
  v[2] = low64(b1, b5);
  v[3] = high64(b1, b5);
  v[4] = low64(b2, b6);
  v[5] = high64(b2, b6);
  v[6] = low64(b3, b7);
  v[7] = high64(b3, b7);
}

// The rate of coefficients, in 32nds of a bit: with t in 32nds of what is coded with one bit or not at
// all, 23 (t / 32)^2 below 32, above that 23 + 32 log2(t / 32), linear between powers of two.
struct RateSums {
  uint32_t squares = 0, logarithms = 0;  // of at most 64 x 64 coefficients: below 2^22, 2^20
};

template <int kLanes>
struct Rate {
  using I16 = typename Vectors<kLanes>::I16;
  using I32 = typename Vectors<kLanes>::I32;
  I32 squares{};
  I16 logarithms{};

  MOTION_INLINE void add(I16 c, I16 scale) {
    c = c > 0 ? c : -c;
    c = c < 8191 ? c : I16{} + 8191;
    I16 t = scaled(c << 3, scale);
    t = t < 0 ? I16{} + 32767 : t;
    const I16 low = t < 32 ? t : I16{} + 32;
    squares += madd(low, low);
    t -= low;
#pragma GCC unroll 5
    for (int i = 0; i < 5; ++i) {
      const I16 width = I16{} + static_cast<int16_t>(32 << i), part = t < width ? t : width;
      logarithms += part >> i;
      t -= part;
    }
  }
  MOTION_INLINE void give(RateSums& to) const {
    const I32 sums = madd(logarithms, I16{} + 1);
    for (int i = 0; i < kLanes / 2; ++i) {
      to.squares += static_cast<uint32_t>(squares[i]);
      to.logarithms += static_cast<uint32_t>(sums[i]);
    }
  }
};

template <int kLanes>
MOTION_INLINE void rate_of(const uint8_t* x, ptrdiff_t x_stride, const uint8_t* a, const uint8_t* b,
                           ptrdiff_t stride, int scale, RateSums& to) {
  using I16 = typename Vectors<kLanes>::I16;
  I16 v[8];
#pragma GCC unroll 8
  for (int r = 0; r < 8; ++r)
    v[r] = difference<kLanes>(x + r * x_stride, a + r * stride, b ? b + r * stride : b);
  butterflies(v, 1);
  butterflies(v, 2);
  butterflies(v, 4);
  transpose(v);
  butterflies(v, 1);
  butterflies(v, 2);
  butterflies(v, 4);
  Rate<kLanes> rate;
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) rate.add(v[i], I16{} + static_cast<int16_t>(scale));
  rate.give(to);
}

MOTION_TARGET uint32_t rate(const uint8_t* x, ptrdiff_t x_stride, const uint8_t* a,
                            const uint8_t* b, ptrdiff_t stride, int rows, int columns, int scale) {
  RateSums sums;
  for (int r = 0; r < rows; r += 8) {
    int c = 0;
#if MOTION_LANES >= 32
    for (; c + 32 <= columns; c += 32)
      rate_of<32>(x + c, x_stride, a + c, b ? b + c : b, stride, scale, sums);
#endif
#if MOTION_LANES >= 16
    for (; c + 16 <= columns; c += 16)
      rate_of<16>(x + c, x_stride, a + c, b ? b + c : b, stride, scale, sums);
#endif
    for (; c < columns; c += 8)
      rate_of<8>(x + c, x_stride, a + c, b ? b + c : b, stride, scale, sums);
    x += 8 * x_stride;
    a += 8 * stride;
    if (b) b += 8 * stride;
  }
  return sums.logarithms + (sums.squares * 23 >> 10);
}

template <int kLanes>
MOTION_INLINE uint32_t sad_of(const uint8_t* x, ptrdiff_t x_stride, const uint8_t* a,
                              const uint8_t* b, ptrdiff_t stride, int rows) {
  using I16 = typename Vectors<kLanes>::I16;
  using I32 = typename Vectors<kLanes>::I32;
  I16 sums{};  // at most 64 rows of 255
  for (int r = 0; r < rows; ++r) {
    const I16 d = difference<kLanes>(x + r * x_stride, a + r * stride, b ? b + r * stride : b);
    sums += d > 0 ? d : -d;
  }
  const I32 pairs = madd(sums, I16{} + 1);
  uint32_t total = 0;
  for (int i = 0; i < kLanes / 2; ++i) total += static_cast<uint32_t>(pairs[i]);
  return total;
}

MOTION_TARGET uint32_t sad(const uint8_t* x, ptrdiff_t x_stride, const uint8_t* a, const uint8_t* b,
                           ptrdiff_t stride, int rows, int columns) {
  uint32_t total = 0;
  int c = 0;
#if MOTION_LANES >= 32
  for (; c + 32 <= columns; c += 32)
    total += sad_of<32>(x + c, x_stride, a + c, b ? b + c : b, stride, rows);
#endif
#if MOTION_LANES >= 16
  for (; c + 16 <= columns; c += 16)
    total += sad_of<16>(x + c, x_stride, a + c, b ? b + c : b, stride, rows);
#endif
  for (; c < columns; c += 8)
    total += sad_of<8>(x + c, x_stride, a + c, b ? b + c : b, stride, rows);
  return total;
}

#define MOTION_LOOPS {filter_bytes, filter_words, filter_floats, to_bytes, rate, sad}

}  // namespace
}  // namespace latentpack::motion
