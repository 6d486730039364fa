// Coding of one chunk; planes_ref.py is the definition.
#pragma once

#include "planes.h"

namespace latentpack::planes {

using Sets = std::vector<std::unique_ptr<ContextSet>>;

// What the chunks of an array share.
struct Coding {
  int width, layout, speed;
  Isa isa;
  const Sets& sets;
};

// A plane on its way.
struct PlaneWork {
  PlaneRecord record;
  uint8_t* plane;      // in its place in the chunk if no plane before it is stored
  bool whole;          // whether `plane` holds the plane
  uint8_t* symbols;    // to be coded: the plane itself, or pairs of nibbles
  size_t symbol_count;
  Sample sample;
  int64_t limit;       // what the plane costs with contexts
  const Table* table;
  EncodeStream stream;
  uint8_t* words_end;  // behind the room for the stream's words
  size_t stream_bytes;
  uint16_t* patch_at;
  uint8_t* patches;
  size_t patch_count;
};

// Codes one chunk after another; the buffers are made once. The steps, in this order: `look`,
// `choose_tables`, `prepare`, the loops for `streams()`, `finish`, `seal`.
class ChunkCoder {
 public:
  ChunkCoder(const Coding&, size_t chunk_elements);

  // In the way kSegments, before `look`.
  void in_segment(size_t segment, uint8_t top, const Table&);
  // Everything that needs no table.
  void look(const uint8_t* elements, size_t n);
  // This must happen in the order of the chunks.
  void choose_tables(TableSet&);
  // What is not done by the loops for whole steps.
  void prepare();
  // The streams that wait for these loops, at most one for each plane.
  void collect(std::vector<EncodeStream*>& streams);
  // Says how many bytes the chunk takes; `last` chunks are not padded.
  void finish(ChunkRecord&, bool last);
  // Puts the chunk together at `to` and takes its checksum.
  void seal(ChunkRecord&, uint8_t* to, bool past_caches);

 private:
  void look_at_exponents();
  void look_at_plane(int p);
  void split();
  uint8_t exponent(size_t i) const;
  uint8_t sampled_top() const;
  void use_bytes(PlaneWork&);
  bool choose_pairs(PlaneWork&, TableSet&);
  bool choose_bytes(PlaneWork&, int p, TableSet&);
  bool use(PlaneWork&, int t, int64_t cost, int kind, TableSet&);
  void code_contexts(int p);
  void start_stream(PlaneWork&);
  void find_pair_patches(size_t rare);
  void finish_stream(PlaneWork&);
  size_t fixed_bytes(const PlaneWork&) const;
  const uint8_t* assemble(size_t size);
  uint8_t* put_stream(const PlaneWork&, uint8_t* to) const;
  const uint8_t* above(int p) const { return p ? works_[p - 1].plane : nullptr; }

  const Coding& coding_;
  const EncodeLoops& loops_;
  const int planes_;
  const size_t room_;  // of a plane, padded
  Buffer buffer_;
  PlaneWork works_[kMaxWidth];
  // Of FLOAT: exponents outside the window; pairs that are coded as others, and what they were.
  uint16_t *outside_at_ = nullptr, *rare_at_ = nullptr;
  uint8_t* rare_ = nullptr;
  size_t outside_ = 0;
  Sample single_;  // of single exponents, where there are many patches
  size_t segment_ = 0;
  uint8_t segment_top_ = 0;
  const Table* segment_table_ = nullptr;
  const uint8_t* elements_ = nullptr;
  size_t n_ = 0, m_ = 0;
  Form form_ = kFormRaw;
};

}  // namespace latentpack::planes
