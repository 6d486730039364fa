// A plane as floats with margins, and what is read around a pixel.
#pragma once

#include <new>

#include "pixels.h"
#include "pixels_vector.h"

namespace latentpack::pixels {
namespace PIXELS_ISA {

constexpr int kSide = 8, kAbove = 5, kBelow = 2;  // margins
constexpr int kReach = 48;                        // taps of the wide predictors, zeros at the end

struct Canvas {
  Canvas(int height, int width)
      : height(height), width(width), stride(width + 2 * kSide),
        memory(static_cast<size_t>(height + kAbove + kBelow) * stride * sizeof(float)),
        origin(memory.as<float>() + kAbove * static_cast<ptrdiff_t>(stride) + kSide) {}

  float* row(int y) const { return origin + static_cast<ptrdiff_t>(y) * stride; }

  // Left of a row stands what its first pixel has above it.
  void start_row(int y) const {
    for (int k = 1; k <= kSide; ++k) row(y)[-k] = row(y - 1)[0];
  }
  // Right of a row stands its last pixel, below the last row that row.
  void end_row(int y) const {
    for (int k = 0; k < kSide; ++k) row(y)[width + k] = row(y)[width - 1];
    if (y < height - 1) return;
    for (int k = 0; k < kBelow; ++k)
      std::memcpy(row(height + k) - kSide, row(height - 1) - kSide, sizeof(float) * stride);
  }

  int height, width, stride;
  Memory memory;
  float* origin;
};

// The canvases of a tile's planes, at most four.
class CanvasList {
 public:
  CanvasList(int count, int height, int width) : CanvasList() {  // so that what is made goes
    for (; count_ < count; ++count_) all_[count_] = new (places_ + count_) Canvas(height, width);
  }
  ~CanvasList() {
    while (count_) all_[--count_]->~Canvas();
  }
  CanvasList(const CanvasList&) = delete;
  CanvasList& operator=(const CanvasList&) = delete;
  // That of a plane, with those of the planes before it before it.
  const Canvas* const* at(int i) const { return all_ + i; }

 private:
  CanvasList() = default;

  static constexpr int kMost = 4;
  struct alignas(Canvas) Place {
    unsigned char bytes[sizeof(Canvas)];
  };
  Place places_[kMost];
  const Canvas* all_[kMost] = {};
  int count_ = 0;
};

// Down and right, the nearest first; without the left pixel, from which all are measured.
constexpr int8_t kOwn[32][2] = {
    {-1, 0},  {-1, -1}, {-1, 1},  {0, -2},  {-2, 0},  {-2, -1}, {-2, 1},  {-1, 2},
    {-1, -2}, {-2, 2},  {-2, -2}, {0, -3},  {-3, 0},  {-1, 3},  {-1, -3}, {-3, -1},
    {-3, 1},  {-2, 3},  {-2, -3}, {0, -4},  {-3, 2},  {-3, -2}, {-4, 0},  {-1, 4},
    {-1, -4}, {-3, 3},  {-3, -3}, {-2, 4},  {-2, -4}, {-4, 1},  {-4, -1}, {0, -5}};
constexpr int8_t kLinked[9][2] = {{0, 0},  {-1, 0}, {0, 1},  {1, 0}, {-1, 1},
                                  {-1, -1}, {1, 1}, {1, -1}, {0, -2}};
// How many taps of (the plane before, the one before that, the plane itself) come first, for the
// least squares, and then for the wide predictors, by the number of links.
constexpr int kFirst[3][3] = {{0, 0, 16}, {9, 0, 7}, {7, 5, 4}};
constexpr int kThen[3][3] = {{0, 0, 16}, {0, 0, 25}, {2, 4, 26}};

class Taps {
 public:
  // `canvases` is at the plane's own; those before it are the linked ones.
  Taps(const Canvas* const* canvases, int links) : links_(links) {
    for (int k = 0; k <= links; ++k) origins_[k] = canvases[-k]->origin;
    const int stride = canvases[0]->stride;
    int done[3] = {};
    for (const auto& counts : {kFirst[links], kThen[links]}) {
      for (int part = 0; part < 3; ++part) {
        const int plane = part == 2 ? 0 : part + 1;
        for (int i = 0; i < counts[part]; ++i) {
          const int8_t* place = plane ? kLinked[done[part]] : kOwn[done[part]];
          ++done[part];
          from_[count] = origins_[plane] + place[0] * stride + place[1];
          plane_[count++] = plane;
        }
      }
    }
  }

  // Differences to the left pixel of each plane: kReach floats.
  PIXELS_INLINE void read(ptrdiff_t at, float* taps) const {
    float left[3];
    for (int k = 0; k <= links_; ++k) left[k] = origins_[k][at - 1];
    for (int i = 0; i < count; ++i) taps[i] = from_[i][at] - left[plane_[i]];
  }

  int count = 0;

 private:
  int links_;
  const float* origins_[3];
  const float* from_[kReach];
  int plane_[kReach];
};

}  // namespace PIXELS_ISA
}  // namespace latentpack::pixels
