// Pixels of fitted pictures and frames, in strips of rows.
#include <algorithm>
#include <cfenv>
#include <deque>

#include "fit_share.h"

namespace latentpack::fit {

size_t Net::numbers(int s, int c, int extra) {
  const int n = kGrids + extra;
  return static_cast<size_t>(4 * (kGrids - 1) + s * (n + 1 + c) + c * (n + 3 + 18 * c));
}

Net::Net(int s, int c, int extra, const float* at) : width(s), colours(c), extra(extra) {
  const auto take = [&at](int n) {
    at += n;
    return at - n;
  };
  up = take(4 * (kGrids - 1));
  w1 = take(s * (kGrids + extra));
  b1 = take(s);
  w2 = take(c * s);
  b2 = take(c);
  skip = take(c * (kGrids + extra));
  k1 = take(9 * c * c);
  c1 = take(c);
  k2 = take(9 * c * c);
  c2 = take(c);
}

namespace {

// Rounding to nearest, subnormal numbers kept, whatever the thread had set; put back at the end.
class PlainArithmetic {
 public:
  PlainArithmetic() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~PlainArithmetic() { std::fesetenv(&before_); }
  PlainArithmetic(const PlainArithmetic&) = delete;
  PlainArithmetic& operator=(const PlainArithmetic&) = delete;

 private:
  std::fenv_t before_;
};

// Planes of floats, with room around each row for its neighbours and for whole vectors.
struct Planes {
  static constexpr size_t kFront = 16;
  size_t count, rows, columns, stride;
  std::vector<float> cells;

  Planes(size_t count, size_t rows, size_t columns)
      : count(count), rows(rows), columns(columns), stride(kFront + (columns + 31) / 16 * 16 + kPad),
        cells(count * rows * stride) {}
  float* row(size_t plane, size_t r) {
    return cells.data() + (plane * rows + r) * stride + kFront;
  }
  const float* row(size_t plane, size_t r) const {
    return const_cast<Planes*>(this)->row(plane, r);
  }
};

// Repeats the ends of a row, `reach` times each.
void repeat_ends(float* row, size_t n, size_t reach) {
  for (size_t i = 1; i <= reach; ++i) {
    row[-static_cast<ptrdiff_t>(i)] = row[0];
    row[n - 1 + i] = row[n - 1];
  }
}

void widen(const int16_t* grid, size_t n, float* to) {
  for (size_t i = 0; i < n; ++i) to[i] = grid[i];
}

bool is_coded(unsigned coded, int k) { return coded >> k & 1; }

// The upsampled grids k and coarser at the size of grid k, row by row from the top; grids that are
// all zeros are left out. The last rows stand in rings.
class Level {
 public:
  // `grid` is nullptr where grid k is left out, `coarser` where k is the coarsest.
  Level(const Loops& loops, const float* kernel, const int16_t* grid, size_t rows, size_t columns,
        size_t ring, Level* coarser)
      : loops_(loops), kernel_(kernel), grid_(grid), coarser_(coarser), height_(rows), ring_(ring),
        between_(coarser ? coarser->rows_.stride + 2 * Planes::kFront : 0),
        rows_((coarser ? coarser->count() : 0) + (grid ? 1 : 0), ring, columns) {}

  size_t count() const { return rows_.count; }
  const float* row(size_t plane, size_t r) const { return rows_.row(plane, r % ring_); }

  // The first row that will be asked for.
  void begin(size_t r) {
    next_ = r;
    if (coarser_) coarser_->begin(r / 2 > 2 ? r / 2 - 2 : 0);
  }

  // Makes the rows up to r.
  void reach(size_t r) {
    for (; next_ <= r; ++next_) make(next_);
  }

 private:
  void make(size_t r) {
    size_t p = 0;
    if (coarser_ && coarser_->count()) {
      coarser_->reach(std::min(r / 2 + 2, coarser_->height_ - 1));
      for (; p < coarser_->count(); ++p) double_row(p, r);
    }
    if (grid_) widen(grid_ + r * rows_.columns, rows_.columns, rows_.row(p, r % ring_));
  }

  // Row r of a plane of the coarser level.
  void double_row(size_t plane, size_t r) {
    const Planes& from = coarser_->rows_;
    const auto last = static_cast<ptrdiff_t>(coarser_->height_) - 1;
    const float mirrored[4] = {kernel_[3], kernel_[2], kernel_[1], kernel_[0]};
    const ptrdiff_t top = static_cast<ptrdiff_t>(r / 2) - (r % 2 ? 1 : 2);
    const float* rows[4];
    for (ptrdiff_t j = 0; j < 4; ++j)
      rows[j] = coarser_->row(plane, static_cast<size_t>(std::clamp<ptrdiff_t>(top + j, 0, last)));
    float* between = between_.data() + Planes::kFront;
    loops_.up_rows(rows, r % 2 ? mirrored : kernel_, from.columns, between);
    repeat_ends(between, from.columns, 2);
    loops_.up_columns(between, kernel_, from.columns, rows_.row(plane, r % ring_));
  }

  const Loops& loops_;
  const float* kernel_;
  const int16_t* grid_;
  Level* coarser_;
  const size_t height_, ring_;
  size_t next_ = 0;
  std::vector<float> between_;
  Planes rows_;
};

// The levels of a picture, the coarsest first; each keeps a pointer to the one before it.
class Pyramid {
 public:
  Pyramid(const Net& net, const Loops& loops, const int16_t* grids, unsigned coded, size_t height,
          size_t width) {
    const int16_t* at[kGrids];
    for (int k = 0; k < kGrids; ++k) {
      at[k] = is_coded(coded, k) ? grids : nullptr;
      grids += rows_of(height, k) * rows_of(width, k);
    }
    for (int k = kGrids - 1; k >= 0; --k)
      levels_.emplace_back(loops, net.up + 4 * k, at[k], rows_of(height, k), rows_of(width, k),
                           k ? kRing : 1, levels_.empty() ? nullptr : &levels_.back());
  }
  Level& finest() { return levels_.back(); }

 private:
  static constexpr size_t kRing = 8;  // a power of two above the 5 rows that two rows come from
  std::deque<Level> levels_;
};

Layer layer_of(const Net& net, unsigned coded, int bits) {
  Layer layer{};
  const int planes = kGrids + net.extra;
  const auto top = static_cast<double>((1 << bits) - 1);
  std::vector<int> columns;
  for (int i = 0; i < planes; ++i) {
    if (i < kGrids && !is_coded(coded, kGrids - 1 - i)) continue;
    layer.units[columns.size()] =
        i < kGrids ? 1.0f / 16 : static_cast<float>(1 / (top * (1 << (kPredictionBits - bits))));
    columns.push_back(i);
  }
  layer.count = static_cast<int>(columns.size());
  for (int j = 0; j < net.width; ++j)
    for (int i : columns) layer.w1.push_back(net.w1[j * planes + i]);
  for (int c = 0; c < net.colours; ++c)
    for (int i : columns) layer.skip.push_back(net.skip[c * planes + i]);
  return layer;
}

// What the strips of a picture read.
struct Sources {
  const Net& net;
  const Layer& layer;
  const Loops& loops;
  const int16_t* grids;
  unsigned coded;
};

// Rows of pixels, top to bottom. The last rows of a and b stand in rings.
class Strip {
 public:
  Strip(const Sources& from, const Picture& picture)
      : from_(from), net_(from.net), picture_(picture), height_(picture.whole_height()),
        width_(picture.whole_width()),
        pyramid_(from.net, from.loops, from.grids, from.coded, height_, width_),
        prediction_(static_cast<size_t>(from.net.extra), 1, width_), a_(colours(), kRing, width_), b_(colours(), kRing, width_), x_hat_(colours(), 2, width_),
        mean_(1, 1, width_) {}

  // Rows first to last - 1, whole pairs where pictures have planes of half the size.
  void paint(size_t first, size_t last) {
    const size_t begin = first > 2 ? first - 2 : 0, end = std::min(height_, last + 2);
    const size_t begin_b = first > 1 ? first - 1 : 0, end_b = std::min(height_, last + 1);
    size_t next_b = begin_b, next = first;
    pyramid_.finest().begin(begin);
    for (size_t r = begin; r < end; ++r) {
      make_a(r);
      // A row of b needs the row of a below it, unless there is none.
      for (; next_b < end_b && std::min(next_b + 1, height_ - 1) <= r; ++next_b) {
        float* to[kMaxColours];
        around(true, a_, next_b, to);
        for (size_t c = 0; c < colours(); ++c) repeat_ends(to[c], width_, 1);
        for (; next < last && std::min(next + 1, height_ - 1) <= next_b; ++next) make_pixels(next);
      }
    }
  }

 private:
  static constexpr size_t kRing = 4;  // a power of two above the 3 rows of a kernel

  size_t colours() const { return static_cast<size_t>(net_.colours); }

  void make_a(size_t r) {
    const float* u[kMaxPlanes];
    Level& grids = pyramid_.finest();
    grids.reach(r);
    for (size_t p = 0; p < grids.count(); ++p) u[p] = grids.row(p, r);
    for (int c = 0; c < net_.extra; ++c) {
      float* row = prediction_.row(static_cast<size_t>(c), 0);
      take_prediction(c, r, row);
      u[grids.count() + static_cast<size_t>(c)] = row;
    }
    float* to[kMaxColours];
    for (size_t c = 0; c < colours(); ++c) to[c] = a_.row(c, r % kRing);
    from_.loops.pixels(net_, from_.layer, u, width_, to);
    for (size_t c = 0; c < colours(); ++c) repeat_ends(to[c], width_, 1);
  }

  // Row r of plane c of the prediction, which goes on to the size of the grids.
  void take_prediction(int c, size_t r, float* to) const {
    const size_t columns = picture_.columns(c);
    const bool halved = picture_.half && c;
    const size_t row = std::min(halved ? r / 2 : r, picture_.rows(c) - 1);
    const int16_t* from = picture_.prediction + picture_.start(c) + row * columns;
    if (halved) {
      for (size_t i = 0; i < columns; ++i) to[2 * i] = to[2 * i + 1] = from[i];
    } else {
      widen(from, columns, to);
      if (columns < width_) to[columns] = from[columns - 1];
    }
  }

  // Row r of a convolution of a ring, to a row of the other ring or of the result.
  void around(bool first, const Planes& ring, size_t r, float** to) {
    const float* rows[3 * kMaxColours];
    const size_t at[3] = {r ? r - 1 : 0, r, std::min(r + 1, height_ - 1)};
    for (size_t c = 0; c < colours(); ++c) {
      for (size_t i = 0; i < 3; ++i) rows[3 * c + i] = ring.row(c, at[i] % kRing);
      to[c] = first ? b_.row(c, r % kRing) : x_hat_.row(c, r % 2);
    }
    from_.loops.around(net_, first, rows, width_, to);
  }

  void make_pixels(size_t r) {
    float* x_hat[kMaxColours];
    around(false, b_, r, x_hat);
    for (int c = 0; c < net_.colours; ++c) {
      const float* row = x_hat[c];
      size_t at = r;
      if (picture_.half && c) {
        if (r % 2 == 0) continue;
        at = r / 2;
        from_.loops.means(x_hat_.row(static_cast<size_t>(c), 0), row, width_ / 2, mean_.row(0, 0));
        row = mean_.row(0, 0);
      }
      if (at < picture_.rows(c)) store_row(c, at, row);
    }
  }

  void store_row(int c, size_t r, const float* row) const {
    const size_t columns = picture_.columns(c), at = picture_.start(c) + r * columns;
    const int top = (1 << picture_.bits) - 1;
    auto* bytes = static_cast<uint8_t*>(picture_.samples);
    from_.loops.to_integers(row, columns, top, bytes + at * (picture_.bits > 8 ? 2 : 1));
  }

  const Sources from_;
  const Net& net_;
  const Picture& picture_;
  const size_t height_, width_;
  Pyramid pyramid_;
  Planes prediction_, a_, b_, x_hat_, mean_;
};

}  // namespace

void synthesise(const Net& net, Isa isa, const int16_t* grids, unsigned coded,
                const Picture& picture, int threads) {
  const PlainArithmetic plain;
  const Loops& loops = loops_for(isa);
  const Layer layer = layer_of(net, coded, picture.bits);
  const Sources from{net, layer, loops, grids, coded};
  const size_t together = picture.half ? 2 : 1;
  share(picture.whole_height() / together, threads, 32 / together, [&](size_t first, size_t last) {
    const PlainArithmetic plain_here;
    Strip(from, picture).paint(first * together, last * together);
  });
}

}  // namespace latentpack::fit
