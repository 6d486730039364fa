// Motion fields as bytes: defined in motion_coder_ref.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "motion.h"

namespace latentpack::motion {

// `before` has null vectors where there is none.
std::vector<uint8_t> encode(const FieldView& field, const FieldView& before);
// Returns how many bytes it has read, 4 of them perhaps ahead. `modes` is null with one reference.
size_t decode(const uint8_t* data, size_t size, const FieldView& before, size_t rows,
              size_t columns, Vector* vectors, uint8_t* modes);

}  // namespace latentpack::motion
