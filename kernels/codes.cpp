// The network of the code prior, step by step, and the decisions that code a code.
#include "codes.h"

#include <algorithm>

#include "pixels_coder.h"

namespace latentpack::codes {

// rint(2^(19 - i / 32))
const uint32_t kPowersOfTwo[kPowers] = {
    524288, 513054, 502060, 491302, 480774, 470472, 460391, 450526,
    440872, 431425, 422180, 413134, 404281, 395618, 387141, 378845,
    370728, 362784, 355010, 347403, 339959, 332674, 325546, 318570,
    311744, 305063, 298527, 292130, 285870, 279744, 273750, 267884,
};

namespace {

// Rows [unit][input] to pairs [pair][unit][2], with zeros for the units beyond `out`; in is even.
void pair_units(const int8_t* rows, int in, int out, int padded, int8_t* to) {
  for (int i = 0; i < in; i += 2)
    for (int o = 0; o < padded; ++o, to += 2)
      for (int j = 0; j < 2; ++j) to[j] = o < out ? rows[static_cast<size_t>(o) * in + i + j] : 0;
}

}  // namespace

Dense make_dense(const DenseView& v) {
  Dense dense{v.in, v.out, {}, {}, {}, {}};
  const size_t units = static_cast<size_t>(v.layers) * v.out, size = static_cast<size_t>(v.in) * v.out;
  dense.weight.resize(v.layers * size);
  for (int n = 0; n < v.layers; ++n)
    pair_units(v.weight + n * size, v.in, v.out, v.out, dense.weight.data() + n * size);
  dense.bias.assign(v.bias, v.bias + units);
  dense.multiplier.assign(v.multiplier, v.multiplier + units);
  dense.shift.assign(v.shift, v.shift + units);
  return dense;
}

void take_head(Model& model, const int8_t* weight, const int32_t* bias) {
  const int f = model.feature_units;
  model.weight.resize(model.padded_starts.back() * f);
  model.bias.assign(model.padded_starts.back(), 0);
  for (int q = 0; q < model.books; ++q) {
    const size_t at = model.starts[q], to = model.padded_starts[q];
    const int size = 1 << model.bits[q];
    pair_units(weight + at * f, f, size, std::max(size, kUnits), model.weight.data() + to * f);
    std::copy(bias + at, bias + at + size, model.bias.data() + to);
  }
}

namespace {

const Loops& loops_for(Isa isa) {
#if LATENTPACK_X86
  if (isa == Isa::kAvx512) return kAvx512Loops;
  if (isa == Isa::kAvx2) return kAvx2Loops;
#endif
  (void)isa;
  return kScalarLoops;
}

// The state of the network between frames.
class Frames {
 public:
  Frames(Isa isa, const Model& model)
      : model_(model),
        loops_(loops_for(isa)),
        sum_(model.dim),
        past_(static_cast<size_t>(model.context) << model.past_layers),
        sums_(size_t{1} << kMaxBits),
        frequencies_(size_t{1} << kMaxBits) {}

  // To the next frame, which is number t.
  void begin(size_t t) {
    const int c = model_.context;
    run(model_.first, 0, sum_.data(), 0, x_);
    for (int i = 0; i < model_.past_layers; ++i) {
      // The 2^i states of this layer before this frame stand in a ring.
      int16_t* before = past_.data() + c * ((size_t{1} << i) - 1 + (t & ((size_t{1} << i) - 1)));
      std::copy(before, before + c, x_ + c);
      std::copy(x_, x_ + c, before);
      int16_t step[kMaxWidth];
      run(model_.past, i, x_, 0, step);
      for (int o = 0; o < c; ++o) x_[o] = static_cast<int16_t>(std::min(x_[o] + step[o], kLimit));
    }
    std::fill(sum_.begin(), sum_.end(), int16_t{0});
  }

  // Of the codes of codebook q, the next of the frame.
  const uint32_t* frequencies(int q) {
    const int inputs = model_.context + model_.dim, f = model_.feature_units;
    std::copy(sum_.begin(), sum_.end(), x_ + model_.context);
    run(model_.hidden, q, x_, 0, x_ + inputs);
    int16_t features[kMaxWidth];
    run(model_.features, q, x_, -kLimit, features);
    const size_t at = model_.padded_starts[q];
    const int size = 1 << model_.bits[q];
    loops_.sums(model_.weight.data() + at * f, model_.bias.data() + at, features, f,
                std::max(size, kUnits), sums_.data());
    loops_.frequencies(sums_.data(), size, frequencies_.data());
    return frequencies_.data();
  }

  void put(int q, int64_t code) {
    const int8_t* row = model_.embedding.data() + (model_.starts[q] + code) * model_.dim;
    for (int i = 0; i < model_.dim; ++i) sum_[i] = static_cast<int16_t>(sum_[i] + row[i]);
  }

  uint32_t total(const uint32_t* at, size_t size) const { return loops_.total(at, size); }

 private:
  void run(const Dense& dense, int layer, const int16_t* x, int low, int16_t* to) {
    int32_t acc[kMaxWidth];
    const size_t at = static_cast<size_t>(layer) * dense.out;
    loops_.sums(dense.weights(layer), dense.bias.data() + at, x, dense.in, dense.out, acc);
    for (int o = 0; o < dense.out; ++o) {
      const int32_t shift = dense.shift[at + o];
      const int64_t scaled =
          (int64_t{acc[o]} * dense.multiplier[at + o] + (int64_t{1} << (shift - 1))) >> shift;
      to[o] = static_cast<int16_t>(std::clamp<int64_t>(scaled, low, kLimit));
    }
  }

  const Model& model_;
  const Loops& loops_;
  std::vector<int16_t> sum_;   // of the frame so far; after a frame, all of it
  std::vector<int16_t> past_;  // rings, that of layer i with 2^i states
  std::vector<int32_t> sums_;
  std::vector<uint32_t> frequencies_;
  int16_t x_[3 * kMaxWidth] = {};  // context, sum, hidden units
};

// Codes a code, or returns the next one.
template <typename Coder>
int64_t code(Coder& coder, const Frames& frames, const uint32_t* at, int bits, int64_t given) {
  int64_t found = 0;
  uint32_t every = frames.total(at, size_t{1} << bits);
  for (int bit = bits - 1; bit >= 0; --bit) {
    const size_t half = size_t{1} << bit;
    const uint32_t ones = frames.total(at + half, half);
    const uint64_t p = (uint64_t{ones} << 16) / every;
    const int one = coder.code(static_cast<int>(given >> bit & 1),
                               static_cast<uint32_t>(std::clamp<uint64_t>(p, 1, 65535)));
    found = 2 * found + one;
    at += one ? half : 0;
    every = one ? ones : every - ones;
  }
  return found;
}

// What follows the settled bytes: the least that is not 0 and, with zeros after it, in the interval.
uint32_t last_byte(const pixels::Encoder& coder) {
  return std::max(1u, static_cast<uint32_t>((uint64_t{coder.low} + 0xFFFFFF) >> 24));
}

// Decodes, and encodes again, to see where an encoder would have ended.
class Checked {
 public:
  Checked(const uint8_t* data, size_t size) : data_(data), size_(size), decoder_(data, size) {}

  int code(int, uint32_t p) { return again_.code(decoder_.code(0, p), p); }

  // The bytes that have left the encoder are those of the decoder: their number is enough.
  void forget() {
    left_ += again_.out.size();
    again_.out.clear();
  }

  bool ended() {
    forget();
    return size_ == left_ + 1 && data_[left_] == last_byte(again_);
  }

 private:
  const uint8_t* data_;
  size_t size_, left_ = 0;
  pixels::Decoder decoder_;
  pixels::Encoder again_;
};

}  // namespace

std::vector<uint8_t> encode(Isa isa, const Model& model, const int64_t* codes, int k,
                            size_t count) {
  Frames frames(isa, model);
  pixels::Encoder coder;
  for (size_t t = 0; t < count; ++t) {
    frames.begin(t);
    for (int q = 0; q < k; ++q) {
      const int64_t given = codes[q * count + t];
      code(coder, frames, frames.frequencies(q), model.bits[q], given);
      frames.put(q, given);
    }
  }
  coder.put(last_byte(coder));
  return coder.out;
}

bool decode(Isa isa, const Model& model, const uint8_t* data, size_t size, int64_t* codes, int k,
            size_t count) {
  Frames frames(isa, model);
  Checked coder(data, size);
  for (size_t t = 0; t < count; ++t) {
    frames.begin(t);
    for (int q = 0; q < k; ++q) {
      const int64_t found = code(coder, frames, frames.frequencies(q), model.bits[q], 0);
      codes[q * count + t] = found;
      frames.put(q, found);
      coder.forget();
    }
  }
  return coder.ended();
}

}  // namespace latentpack::codes
