// Motion fields as bytes: see motion_coder_ref.py.
#include <algorithm>
#include <cstdlib>

#include "motion_coder.h"
#include "motion_field.h"
#include "motion_model.h"

namespace latentpack::motion {
namespace {

constexpr int kLogistic[33] = {
    22,    36,    60,    98,    162,   267,   439,   721,   1179,  1921,  3108,
    4971,  7812,  11969, 17625, 24743, 32768, 40793, 47911, 53567, 57724, 60565,
    62428, 63615, 64357, 64815, 65097, 65269, 65374, 65438, 65476, 65500, 65514,
};

int16_t wrapped(int x) { return static_cast<int16_t>(x); }

// Goes through the tree, in both directions of coding; `wanted` is null for decoding.
template <typename Coder>
class Walk {
 public:
  Walk(Coder& coder, Grid& grid, const Motion* wanted)
      : model_(coder), grid_(grid), wanted_(wanted) {}

  void run() {
    const int side = std::max(grid_.rows, grid_.columns);
    if (!split(0, 0, side, kWhole, 0, 0)) {
      leaf(0, 0, side, kWhole);
      return;
    }
    for (int r = 0; r < grid_.rows; r += kRoot)
      for (int c = 0; c < grid_.columns; c += kRoot) node(r, c, kRoot, kRootLevel, 0, 0);
  }

 private:
  const Motion* wanted(int r, int c) const {
    return wanted_ ? wanted_ + static_cast<ptrdiff_t>(r) * grid_.columns + c : nullptr;
  }

  int node(int r, int c, int side, int level, int number, int splits) {
    if (!level || !split(r, c, side, level, number, splits)) {
      leaf(r, c, side, level);
      return 0;
    }
    splits = 0;
    for (int i = 0; i < 4; ++i) {
      const int y = r + i / 2 * (side / 2), x = c + i % 2 * (side / 2);
      if (y < grid_.rows && x < grid_.columns) splits += node(y, x, side / 2, level - 1, i, splits);
    }
    return 1;
  }

  bool differs(int r, int c, int side) const {
    const Motion& first = *wanted(r, c);
    for (int i = r; i < std::min(r + side, grid_.rows); ++i)
      for (int j = c; j < std::min(c + side, grid_.columns); ++j)
        if (!(*wanted(i, j) == first)) return true;
    return false;
  }

  int split(int r, int c, int side, int level, int number, int splits) {
    const int left = grid_.level(r, c - 1), top = grid_.level(r - 1, c);
    const auto compared = [&](int there) { return there < 0 ? 0 : there < level ? 2 : 1; };
    const Motion *a = grid_.around(r, c, side, 0), *b = grid_.around(r, c, side, 1);
    const int alike = !a || !b ? 0 : *a == *b ? 1 : 2;
    return model_.code(kKinds.split, level, level * 9 + compared(left) * 3 + compared(top),
                       level * 9 + alike * 3 + grid_.calm(r, c, side),
                       level * 16 + number * 4 + splits, wanted_ && differs(r, c, side));
  }

  void leaf(int r, int c, int side, int level) {
    const Choices choices = grid_.choices(r, c, side);
    const Motion* goal = wanted(r, c);
    int at = -1;
    for (int i = 0; goal && i < choices.count && at < 0; ++i)
      if (choices.list[i].motion == *goal) at = i;
    const int left = grid_.merged(r, c - 1), top = grid_.merged(r - 1, c);
    const bool merged = model_.code(
        kKinds.merge, level, level * 6 + std::min(choices.list[0].votes, 5),
        level * 9 + left * 3 + top, level * 12 + choices.count * 2 + grid_.temporal(), at >= 0);
    grid_.fill(r, c, side, level,
               merged ? choices.list[index(choices, level, at)].motion : own(r, c, side, level, goal),
               merged);
  }

  int index(const Choices& choices, int level, int goal) {
    for (int i = 0; i < choices.count - 1; ++i) {
      const Choice& choice = choices.list[i];
      const int votes = std::min(choice.votes, 5), next = std::min(choices.list[i + 1].votes, 5);
      if (model_.code(kKinds.index, i, i * 36 + votes * 6 + next,
                      i * 35 + choice.source * 5 + level, i * 20 + choices.count * 3 + grid_.two,
                      goal == i))
        return i;
    }
    return choices.count - 1;
  }

  Motion own(int r, int c, int side, int level, const Motion* goal) {
    Motion made{{{0, 0}, {0, 0}}, kFirst};
    if (grid_.two) made.mode = mode(r, c, side, level, goal);
    for (int i = 0; i < 2; ++i) {
      if (!made.uses(i)) continue;
      const Vector near = grid_.predicted(r, c, side, i);
      const int spread = grid_.spread(r, c, side, i);
      const int goal_y = goal ? wrapped(goal->v[i].y - near.y) : 0;
      const int goal_x = goal ? wrapped(goal->v[i].x - near.x) : 0;
      int other = 7;
      made.v[i].y = wrapped(near.y + difference(0, other, spread, level, made.mode, goal_y));
      made.v[i].x = wrapped(near.x + difference(1, other, spread, level, made.mode, goal_x));
    }
    return made;
  }

  uint8_t mode(int r, int c, int side, int level, const Motion* goal) {
    Motion before;
    const bool temporal = grid_.temporal(r, c, side, before);
    const Motion *a = grid_.around(r, c, side, 0), *b = grid_.around(r, c, side, 1);
    const int of_a = a ? a->mode : 3, of_b = b ? b->mode : 3, of_t = temporal ? before.mode : 3;
    for (int i = 0; i < 2; ++i) {
      const uint8_t one = i ? kSecond : kMean;
      if (model_.code(kKinds.mode, i, i * 16 + of_a * 4 + of_b, i * 20 + of_t * 5 + level,
                      i * 5 + level, goal && goal->mode == one))
        return one;
    }
    return kFirst;
  }

  // `other`: for x the bits of the size of y, at most 6; 7 for y, which leaves them there.
  int difference(int component, int& other, int spread, int level, int mode, int goal) {
    const int which = component ? 1 + (other > 0) : 0, mean = mode == kMean;
    if (model_.code(kKinds.zero, which, which * 6 + spread, which * 10 + level * 2 + mean,
                    which * 12 + std::min(other, 5) * 2 + mean, !goal)) {
      other = 0;
      return 0;
    }
    const int size = std::abs(goal);
    int log2 = 0;
    for (; log2 < 15; ++log2) {
      const int at = component * 10 + std::min(log2, 9);
      if (!model_.code(kKinds.exponent, component, at * 6 + spread, at * 5 + level,
                       at * 7 + std::min(other, 6), (size >> (log2 + 1)) > 0))
        break;
    }
    int read = 1;
    for (int i = log2 - 1; i >= 0; --i) {
      int bit = size >> i & 1;
      const int at = component * 16 + log2;
      bit = i == log2 - 1 ? model_.code(kKinds.mantissa, component, at, at * 2 + mean, component, bit)
                          : model_.even(bit);
      read = read * 2 + bit;
    }
    other = std::min(log2 + 1, 6);
    return model_.even(goal < 0) ? -read : read;
  }

  Model<Coder> model_;
  Grid& grid_;
  const Motion* wanted_;
};

}  // namespace

int Tables::probability(int odds) {
  const int at = (odds + 2048) >> 7, part = (odds + 2048) & 127;
  return kLogistic[at] + ((kLogistic[at + 1] - kLogistic[at]) * part >> 7);
}

Tables::Tables() {
  int x = -kMostOdds;
  for (int i = 0; i < 4096; ++i) {
    while (x < kMostOdds && probability(x) < 16 * i + 8) ++x;
    odds[i] = static_cast<int16_t>(x);
  }
  for (int n = 0; n <= kMostCount; ++n) rates[n] = 131072 / (2 * n + 3);
}

const Tables& Tables::get() {
  static const Tables tables;
  return tables;
}

std::vector<uint8_t> encode(const FieldView& field, const FieldView& before) {
  const int rows = static_cast<int>(field.rows), columns = static_cast<int>(field.columns);
  Grid grid(rows, columns, field.modes, before);
  std::vector<Motion> wanted(field.rows * field.columns);
  for (size_t i = 0; i < wanted.size(); ++i) wanted[i] = motion_of(field, i);
  pixels::Encoder coder;
  Walk<pixels::Encoder>(coder, grid, wanted.data()).run();
  coder.finish();
  return coder.out;
}

size_t decode(const uint8_t* data, size_t size, const FieldView& before, size_t rows,
              size_t columns, Vector* vectors, uint8_t* modes) {
  Grid grid(static_cast<int>(rows), static_cast<int>(columns), modes, before);
  pixels::Decoder coder(data, size);
  Walk<pixels::Decoder>(coder, grid, nullptr).run();
  grid.copy(vectors, modes);
  return static_cast<size_t>(coder.at - data);
}

}  // namespace latentpack::motion
