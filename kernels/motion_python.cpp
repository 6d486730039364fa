// motion.cpp and motion_search.cpp for Python: buffers in, buffers filled, the lock released
// meanwhile. motion.py has checked the arguments; what is checked again is what memory safety needs.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <new>

#include "motion.h"
#include "python_arguments.h"

namespace {

using latentpack::chosen;
using latentpack::failed;
using latentpack::View;
namespace motion = latentpack::motion;

constexpr Py_ssize_t kMaxSide = 1 << 16;

bool legal_side(Py_ssize_t n) { return n > 0 && n <= kMaxSide; }

size_t blocks_of(Py_ssize_t n, int scale) {
  const auto side = static_cast<size_t>(motion::kBlock / scale);
  return (static_cast<size_t>(n) + side - 1) / side;
}

// Whether vectors and modes, which are empty with one reference, are those of `blocks` blocks.
bool legal_field(const View& vectors, const View& modes, size_t blocks) {
  const bool two = modes.size() > 0;
  if (vectors.count<motion::Vector>() != (two ? 2 : 1) * blocks || (two && modes.size() != blocks))
    return false;
  for (size_t i = 0; i < modes.size(); ++i)
    if (modes.data()[i] > motion::kMean) return false;
  return true;
}

template <typename T, typename Out>
void warp(const motion::Loops& loops, const View& first, const View& second, size_t planes,
          size_t rows, size_t columns, int scale, const motion::FieldView& field, int bits,
          const View& to) {
  for (size_t i = 0; i < planes; ++i) {
    const size_t at = i * rows * columns;
    const motion::Plane<T> plane{{first.as<T>() + at, field.modes ? second.as<T>() + at : nullptr},
                                 rows, columns, scale};
    motion::warp(loops, plane, field, bits, to.as<Out>() + at);
  }
}

// kind: 0 bytes, 1 int16, 2 floats.
PyObject* motion_warp(PyObject*, PyObject* args) {
  View first, second, vectors, modes, to;
  Py_ssize_t planes, rows, columns;
  int kind, scale, bits, backend;
  if (!PyArg_ParseTuple(args, "y*y*y*y*(nnn)iiiw*i", &first.view, &second.view, &vectors.view,
                        &modes.view, &planes, &rows, &columns, &kind, &scale, &bits, &to.view,
                        &backend))
    return nullptr;
  if (planes < 1 || planes > kMaxSide || !legal_side(rows) || !legal_side(columns) || kind < 0 ||
      kind > 2 || (scale != 1 && scale != 2 && scale != 8) || bits < 8 || bits > motion::kDepth)
    return failed("sizes do not fit");
  const size_t n = static_cast<size_t>(planes) * static_cast<size_t>(rows) *
                   static_cast<size_t>(columns);
  const size_t width = kind == 0 ? 1 : kind == 1 ? 2 : 4;
  const motion::FieldView field{vectors.as<motion::Vector>(),
                                modes.size() ? modes.data() : nullptr, blocks_of(rows, scale),
                                blocks_of(columns, scale)};
  if (first.size() != n * width || (field.modes && second.size() != n * width) ||
      to.size() != n * (kind == 2 ? 4 : 2) ||
      !legal_field(vectors, modes, field.rows * field.columns))
    return failed("arrays do not fit");
  const motion::Loops& loops = motion::loops_for(chosen(backend));
  const auto p = static_cast<size_t>(planes), h = static_cast<size_t>(rows),
             w = static_cast<size_t>(columns);
  Py_BEGIN_ALLOW_THREADS
  if (kind == 0) warp<uint8_t, int16_t>(loops, first, second, p, h, w, scale, field, bits, to);
  else if (kind == 1) warp<int16_t, int16_t>(loops, first, second, p, h, w, scale, field, bits, to);
  else warp<float, float>(loops, first, second, p, h, w, scale, field, bits, to);
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}

PyObject* motion_search(PyObject*, PyObject* args) {
  View current, first, second, before, modes_before, vectors, modes;
  Py_ssize_t rows, columns;
  double lmbda;
  int effort, backend;
  if (!PyArg_ParseTuple(args, "y*y*y*(nn)y*y*diw*w*i", &current.view, &first.view, &second.view,
                        &rows, &columns, &before.view, &modes_before.view, &lmbda, &effort,
                        &vectors.view, &modes.view, &backend))
    return nullptr;
  if (!legal_side(rows) || !legal_side(columns) || !(lmbda > 0) || effort < 0 || effort > 2)
    return failed("numbers do not fit");
  const size_t n = static_cast<size_t>(rows) * static_cast<size_t>(columns);
  const size_t blocks = blocks_of(rows, 1) * blocks_of(columns, 1);
  const bool two = second.size() > 0, temporal = before.size() > 0;
  if (current.size() != n || first.size() != n || (two && second.size() != n) ||
      two != (modes.size() > 0) || !legal_field(vectors, modes, blocks) ||
      (temporal && (!legal_field(before, modes_before, blocks) ||
                    two != (modes_before.size() > 0))))
    return failed("arrays do not fit");
  const motion::Wanted wanted{current.data(),
                              {first.data(), two ? second.data() : nullptr},
                              static_cast<size_t>(rows),
                              static_cast<size_t>(columns),
                              temporal ? before.as<motion::Vector>() : nullptr,
                              temporal && two ? modes_before.data() : nullptr,
                              lmbda,
                              effort};
  bool memory = true;
  Py_BEGIN_ALLOW_THREADS
  try {
    motion::search(motion::loops_for(chosen(backend)), wanted, vectors.as<motion::Vector>(),
                   modes.data());
  } catch (const std::bad_alloc&) {
    memory = false;
  }
  Py_END_ALLOW_THREADS
  if (!memory) return PyErr_NoMemory();
  Py_RETURN_NONE;
}

}  // namespace

PyMethodDef motion_methods[] = {
    {"motion_warp", motion_warp, METH_VARARGS,
     "(first, second, vectors, modes, (planes, rows, columns), kind, scale, bits, to, isa)."},
    {"motion_search", motion_search, METH_VARARGS,
     "(current, first, second, (rows, columns), before, modes_before, lmbda, effort, vectors, "
     "modes, isa)."},
    {nullptr, nullptr, 0, nullptr},
};
