// How a coded chunk is put together; planes_ref.py is the definition.
#include <algorithm>
#include <cstring>

#include "planes_chunk.h"
#include "xxh3.h"

namespace latentpack::planes {

void ChunkCoder::finish(ChunkRecord& record, bool last) {
  record.form = form_;
  if (form_ == kFormConst) std::memcpy(record.value, elements_, coding_.width);
  if (form_ == kFormConst) return;
  const size_t all = n_ * coding_.width;
  size_t size = 0;
  for (int p = 0; p < planes_ && form_ == kFormPlanes; ++p) {
    PlaneWork& work = works_[p];
    finish_stream(work);
    record.planes[p] = work.record;
    size += padded(fixed_bytes(work)) + work.stream_bytes + size_t{3} * work.record.patches;
  }
  if (form_ == kFormPlanes && size < all) {
    if (coding_.speed == kContextsOfBytes) record.form = kFormBytes;
    record.size = last ? size : padded(size);
  } else {
    record.form = form_ = kFormRaw;
    record.size = last ? all : padded(all);
  }
}

// The sizes of the stream; the plane itself is taken where that is as small.
void ChunkCoder::finish_stream(PlaneWork& work) {
  PlaneRecord& record = work.record;
  const bool stream = record.mode == kPair || record.mode == kBytes || record.mode == kContext;
  if (stream && 3 * work.patch_count < m_)
    work.stream_bytes = 1 + 4 * choose_lanes(work.symbol_count) +
                        static_cast<size_t>(work.words_end - work.stream.out);
  if (stream && (!work.stream_bytes || work.stream_bytes + 3 * work.patch_count >= m_)) {
    work.stream_bytes = work.patch_count = 0;
    record.mode = kRaw;
  }
  if (record.mode == kRaw) work.patch_count = 0;
  record.size = static_cast<uint32_t>(work.stream_bytes);
  record.patches = static_cast<uint16_t>(work.patch_count);
}

size_t ChunkCoder::fixed_bytes(const PlaneWork& work) const {
  return work.record.mode == kRaw ? m_ : work.record.mode == kWindow ? (m_ + 1) / 2 : 0;
}

void ChunkCoder::seal(ChunkRecord& record, uint8_t* to, bool past_caches) {
  if (record.form == kFormConst) return;
  const uint8_t* from = record.form == kFormRaw ? elements_ : assemble(record.size);
  // Copied block by block, before its part of the checksum is taken: from then on it is near.
  const auto place = reinterpret_cast<uintptr_t>(to);
  past_caches &= place % kAlign == 0;
  size_t done = 0;
  const auto copy_up_to = [&](size_t end) {
    if (past_caches) {
      end = std::max(done, (place + end) / kLine * kLine - place);  // no line in two parts
      loops_.copy_past_caches(to + done, from + done, end - done);
    } else {
      std::memcpy(to + done, from + done, end - done);
    }
    done = end;
  };
  record.checksum = static_cast<uint32_t>(
      xxh3::hash64(from, record.size, coding_.isa, copy_up_to));
  const size_t left = record.size - done, whole = past_caches ? left / kAlign * kAlign : 0;
  loops_.copy_past_caches(to + done, from + done, whole);
  std::memcpy(to + done + whole, from + done + whole, left - whole);
}

// The chunk in one piece, with zeros up to `size`.
const uint8_t* ChunkCoder::assemble(size_t size) {
  for (int p = 0; p < planes_; ++p)
    if (works_[p].record.mode == kRaw && !works_[p].whole) split();
  uint8_t* start = nullptr;
  uint8_t* at = nullptr;
  for (int p = 0; p < planes_; ++p) {
    const PlaneWork& work = works_[p];
    const size_t bytes = fixed_bytes(work);
    if (!bytes) continue;
    const uint8_t* from = work.record.mode == kWindow ? work.symbols : work.plane;
    if (!start) start = at = const_cast<uint8_t*>(from);
    if (at != from) std::memmove(at, from, bytes);
    std::memset(at + bytes, 0, padded(bytes) - bytes);
    at += padded(bytes);
  }
  if (!start) start = at = works_[0].plane;
  for (int p = 0; p < planes_; ++p) at = put_stream(works_[p], at);
  std::memset(at, 0, static_cast<size_t>(start + size - at));
  return start;
}

uint8_t* ChunkCoder::put_stream(const PlaneWork& work, uint8_t* to) const {
  if (work.stream_bytes) {
    const size_t lanes = choose_lanes(work.symbol_count);
    *to++ = lanes == 32 ? 5 : lanes == 4 ? 2 : 0;
    std::memcpy(to, work.stream.states, 4 * lanes);
    to += 4 * lanes;
    const auto words = static_cast<size_t>(work.words_end - work.stream.out);
    std::memcpy(to, work.stream.out, words);
    to += words;
  }
  std::memcpy(to, work.patch_at, 2 * work.patch_count);
  std::memcpy(to + 2 * work.patch_count, work.patches, work.patch_count);
  return to + 3 * work.patch_count;
}

}  // namespace latentpack::planes
