// Vectors and matrix products of one instruction set. Included once per instruction set, after
// FIT_TARGET (the functions' attribute) and FIT_WIDTH (floats of a vector) are defined.
#include <cstring>

#define FIT_INLINE FIT_TARGET inline __attribute__((always_inline))

namespace latentpack::fit_train {
namespace {

constexpr int W = FIT_WIDTH;
constexpr int kTileRows = W == 16 ? 8 : 4;
constexpr int kTileVectors = 3;
static_assert(kBlock % (kTileVectors * W) == 0, "a block is whole tiles");

typedef float V __attribute__((vector_size(4 * W)));
typedef int32_t Vi __attribute__((vector_size(4 * W)));
typedef uint32_t Vu __attribute__((vector_size(4 * W)));

FIT_INLINE V load(const float* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
FIT_INLINE void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }
FIT_INLINE V all(float x) { return x - V{}; }
FIT_INLINE V fma(V a, V b, V c) {
#if FIT_WIDTH == 16
  return reinterpret_cast<V>(_mm512_fmadd_ps(reinterpret_cast<__m512>(a),
                                             reinterpret_cast<__m512>(b),
                                             reinterpret_cast<__m512>(c)));
#elif FIT_WIDTH == 8
  return reinterpret_cast<V>(_mm256_fmadd_ps(reinterpret_cast<__m256>(a),
                                             reinterpret_cast<__m256>(b),
                                             reinterpret_cast<__m256>(c)));
#else
  return a * b + c;
#endif
}
FIT_INLINE V choose(Vi mask, V yes, V no) { return mask ? yes : no; }
FIT_INLINE V relu(V x) { return choose(x > V{}, x, V{}); }
FIT_INLINE V least(V a, V b) { return choose(a < b, a, b); }
FIT_INLINE V most(V a, V b) { return choose(a > b, a, b); }
FIT_INLINE V magnitude(V x) {
  return reinterpret_cast<V>(reinterpret_cast<Vi>(x) & 0x7FFFFFFF);
}
FIT_INLINE float total(V x) {
  float sum = 0;
  for (int i = 0; i < W; ++i) sum += x[i];
  return sum;
}
// The lanes 0, 1, 2, ...
FIT_INLINE Vi lanes() {
  Vi v;
  for (int i = 0; i < W; ++i) v[i] = i;
  return v;
}

// e ** x for x from -87 to 87; relative error about 2e-7.
FIT_INLINE V exponential(V x) {
  const V limit = all(87.0f);
  x = most(least(x, limit), -limit);
  const V shifted = fma(x, all(1.44269504f), all(12582912.0f));
  const V n = shifted - 12582912.0f;
  V r = fma(n, all(-0.693359375f), x);
  r = fma(n, all(2.12194440e-4f), r);
  V p = all(1.9875691500e-4f);
  p = fma(p, r, all(1.3981999507e-3f));
  p = fma(p, r, all(8.3334519073e-3f));
  p = fma(p, r, all(4.1665795894e-2f));
  p = fma(p, r, all(1.6666665459e-1f));
  p = fma(p, r, all(5.0000001201e-1f));
  p = fma(p, r * r, r + 1.0f);
  const Vi bits = (reinterpret_cast<Vi>(shifted) - 0x4B400000) << 23;
  return reinterpret_cast<V>(reinterpret_cast<Vi>(p) + bits);
}

// The natural logarithm of normal positive numbers; absolute error about 1e-7 near 1.
FIT_INLINE V logarithm(V x) {
  const Vi bits = reinterpret_cast<Vi>(x);
  const Vi e = (bits - 0x3F3504F3) >> 23;  // so that the mantissa is from 0.707 to 1.414
  const V m = reinterpret_cast<V>(bits - (e << 23)) - 1.0f;
  V p = all(7.0376836292e-2f);
  p = fma(p, m, all(-1.1514610310e-1f));
  p = fma(p, m, all(1.1676998740e-1f));
  p = fma(p, m, all(-1.2420140846e-1f));
  p = fma(p, m, all(1.4249322787e-1f));
  p = fma(p, m, all(-1.6668057665e-1f));
  p = fma(p, m, all(2.0000714765e-1f));
  p = fma(p, m, all(-2.4999993993e-1f));
  p = fma(p, m, all(3.3333331174e-1f));
  const V square = m * m;
  V y = p * m * square;
  const V n = __builtin_convertvector(e, V);
  y = fma(n, all(-2.12194440e-4f), y) - 0.5f * square;
  return fma(n, all(0.693359375f), m + y);
}

// What happens to a sum before it is stored.
enum After {
  kPlain,
  kRelu,
  kAddRelu,   // other + relu(sum)
  kMask,      // sum where other > 0
  kBoth,      // sum, and second = sum where other > third
  kAddMask,   // (sum + third) where other > 0
};

struct Product {
  const float* panel;  // [k][m]
  int m, k;
  const float* x;  // k rows
  size_t x_stride;
  float* y;  // m rows
  size_t y_stride;
  const float* start;  // m values to begin with; nullptr = y itself
  const float* other = nullptr;  // rows like y's, of a block's length
  const float* third = nullptr;
  float* second = nullptr;
};

template <int Rows, After after>
FIT_INLINE void tile(const Product& p, int m, int column) {
  V sum[Rows][kTileVectors];
  for (int i = 0; i < Rows; ++i)
    for (int j = 0; j < kTileVectors; ++j)
      sum[i][j] = p.start ? all(p.start[m + i])
                          : load(p.y + static_cast<size_t>(m + i) * p.y_stride + column + j * W);
  const float* w = p.panel + m;
  const float* x = p.x + column;
  for (int k = 0; k < p.k; ++k, w += p.m, x += p.x_stride) {
    V in[kTileVectors];
    for (int j = 0; j < kTileVectors; ++j) in[j] = load(x + j * W);
    for (int i = 0; i < Rows; ++i) {
      const V weight = all(w[i]);
      for (int j = 0; j < kTileVectors; ++j) sum[i][j] = fma(weight, in[j], sum[i][j]);
    }
  }
  for (int i = 0; i < Rows; ++i)
    for (int j = 0; j < kTileVectors; ++j) {
      const size_t at = static_cast<size_t>(m + i) * kBlock + static_cast<size_t>(column + j * W);
      float* y = p.y + static_cast<size_t>(m + i) * p.y_stride + column + j * W;
      const V s = sum[i][j];
      if constexpr (after == kPlain) store(y, s);
      if constexpr (after == kRelu) store(y, relu(s));
      if constexpr (after == kAddRelu) store(y, load(p.other + at) + relu(s));
      if constexpr (after == kMask) store(y, choose(load(p.other + at) > V{}, s, V{}));
      if constexpr (after == kAddMask)
        store(y, choose(load(p.other + at) > V{}, s + load(p.third + at), V{}));
      if constexpr (after == kBoth) {
        store(y, s);
        store(p.second + at, choose(load(p.other + at) > load(p.third + at), s, V{}));
      }
    }
}

template <int Rows, After after>
FIT_TARGET __attribute__((noinline)) void tiles(const Product& p, int first, int last, int column) {
  for (int m = first; m < last; m += Rows) tile<Rows, after>(p, m, column);
}

// y = after(start + panel^T x), a block of columns.
template <After after>
FIT_TARGET void multiply(const Product& p) {
  const int whole = p.m / kTileRows * kTileRows;
  for (int column = 0; column < kBlock; column += kTileVectors * W) {
    tiles<kTileRows, after>(p, 0, whole, column);
    switch (p.m - whole) {
      case 1: tiles<1, after>(p, whole, p.m, column); break;
      case 2: tiles<2, after>(p, whole, p.m, column); break;
      case 3: tiles<3, after>(p, whole, p.m, column); break;
      case 4: tiles<4, after>(p, whole, p.m, column); break;
      case 5: tiles<5, after>(p, whole, p.m, column); break;
      case 6: tiles<6, after>(p, whole, p.m, column); break;
      case 7: tiles<7, after>(p, whole, p.m, column); break;
      default: break;
    }
  }
}

struct Outer {
  const float* a;  // m rows of a block's length
  int m;
  const float* x;  // k rows
  size_t x_stride;
  int k;
  float* sums;  // [m][k] vectors
};

template <int Rows, int Columns>
FIT_INLINE void outer_tile(const Outer& o, int m, int k) {
  V sum[Rows][Columns];
  float* to = o.sums + (static_cast<size_t>(m) * static_cast<size_t>(o.k) + static_cast<size_t>(k)) * W;
  for (int i = 0; i < Rows; ++i)
    for (int j = 0; j < Columns; ++j) sum[i][j] = load(to + (i * o.k + j) * W);
  const float* a = o.a + static_cast<size_t>(m) * kBlock;
  const float* x = o.x + static_cast<size_t>(k) * o.x_stride;
  for (int p = 0; p < kBlock; p += W) {
    V left[Rows];
    for (int i = 0; i < Rows; ++i) left[i] = load(a + i * kBlock + p);
    for (int j = 0; j < Columns; ++j) {
      const V right = load(x + static_cast<size_t>(j) * o.x_stride + p);
      for (int i = 0; i < Rows; ++i) sum[i][j] = fma(left[i], right, sum[i][j]);
    }
  }
  for (int i = 0; i < Rows; ++i)
    for (int j = 0; j < Columns; ++j) store(to + (i * o.k + j) * W, sum[i][j]);
}

template <int Rows>
FIT_TARGET __attribute__((noinline)) void outer_rows(const Outer& o, int m) {
  constexpr int kColumns = W == 16 ? 6 : 3;
  int k = 0;
  for (; k + kColumns <= o.k; k += kColumns) outer_tile<Rows, kColumns>(o, m, k);
  if constexpr (kColumns > 3)
    for (; k + 3 <= o.k; k += 3) outer_tile<Rows, 3>(o, m, k);
  for (; k < o.k; ++k) outer_tile<Rows, 1>(o, m, k);
}

// sums += a x^T over a block, lane by lane.
FIT_TARGET void add_outer(const Outer& o) {
  int m = 0;
  for (; m + 4 <= o.m; m += 4) outer_rows<4>(o, m);
  switch (o.m - m) {
    case 1: outer_rows<1>(o, m); break;
    case 2: outer_rows<2>(o, m); break;
    case 3: outer_rows<3>(o, m); break;
    default: break;
  }
}

// sums[m] += the values of row m of a block, lane by lane.
FIT_TARGET void add_rows(const float* rows, int m, float* sums) {
  for (int i = 0; i < m; ++i, rows += kBlock) {
    V sum = load(sums + i * W);
    for (int p = 0; p < kBlock; p += W) sum += load(rows + p);
    store(sums + i * W, sum);
  }
}

}  // namespace
}  // namespace latentpack::fit_train
