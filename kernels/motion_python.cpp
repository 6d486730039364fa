// motion.cpp and motion_search.cpp for Python: buffers in, buffers filled, the lock released
// meanwhile. motion.py has checked the arguments; what is checked again is what memory safety needs.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <new>

#include "motion.h"
#include "motion_coder.h"
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

// Of a picture of this size; null vectors where there is no field.
motion::FieldView view_of(const View& vectors, const View& modes, Py_ssize_t rows,
                          Py_ssize_t columns) {
  return {vectors.size() ? vectors.as<motion::Vector>() : nullptr,
          modes.size() ? modes.data() : nullptr, blocks_of(rows, 1), blocks_of(columns, 1)};
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

// Whether there is a field before, and it is one for as many references, or none.
bool legal_before(const View& before, const View& modes, bool two, size_t blocks) {
  return !before.size() || (legal_field(before, modes, blocks) && two == (modes.size() > 0));
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
  const bool two = second.size() > 0;
  if (current.size() != n || first.size() != n || (two && second.size() != n) ||
      two != (modes.size() > 0) || !legal_field(vectors, modes, blocks) ||
      !legal_before(before, modes_before, two, blocks))
    return failed("arrays do not fit");
  const motion::Wanted wanted{current.data(),
                              {first.data(), two ? second.data() : nullptr},
                              static_cast<size_t>(rows),
                              static_cast<size_t>(columns),
                              view_of(before, modes_before, rows, columns),
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

PyObject* motion_encode(PyObject*, PyObject* args) {
  View vectors, modes, before, modes_before;
  Py_ssize_t rows, columns;
  if (!PyArg_ParseTuple(args, "y*y*y*y*(nn)", &vectors.view, &modes.view, &before.view,
                        &modes_before.view, &rows, &columns))
    return nullptr;
  const bool two = modes.size() > 0;
  if (!legal_side(rows) || !legal_side(columns)) return failed("numbers do not fit");
  const size_t blocks = blocks_of(rows, 1) * blocks_of(columns, 1);
  if (!legal_field(vectors, modes, blocks) || !legal_before(before, modes_before, two, blocks))
    return failed("arrays do not fit");
  std::vector<uint8_t> data;
  bool memory = true;
  Py_BEGIN_ALLOW_THREADS
  try {
    data = motion::encode(view_of(vectors, modes, rows, columns),
                          view_of(before, modes_before, rows, columns));
  } catch (const std::bad_alloc&) {
    memory = false;
  }
  Py_END_ALLOW_THREADS
  if (!memory) return PyErr_NoMemory();
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(data.data()),
                                   static_cast<Py_ssize_t>(data.size()));
}

PyObject* motion_decode(PyObject*, PyObject* args) {
  View data, vectors, modes, before, modes_before;
  Py_ssize_t rows, columns;
  if (!PyArg_ParseTuple(args, "y*y*y*(nn)w*w*", &data.view, &before.view, &modes_before.view,
                        &rows, &columns, &vectors.view, &modes.view))
    return nullptr;
  const bool two = modes.size() > 0;
  if (!legal_side(rows) || !legal_side(columns)) return failed("numbers do not fit");
  const size_t blocks = blocks_of(rows, 1) * blocks_of(columns, 1);
  if (!legal_field(vectors, modes, blocks) || !legal_before(before, modes_before, two, blocks))
    return failed("arrays do not fit");
  size_t used = 0;
  bool memory = true;
  Py_BEGIN_ALLOW_THREADS
  try {
    used = motion::decode(data.data(), data.size(), view_of(before, modes_before, rows, columns),
                          blocks_of(rows, 1), blocks_of(columns, 1), vectors.as<motion::Vector>(), two ? modes.data() : nullptr);
  } catch (const std::bad_alloc&) {
    memory = false;
  }
  Py_END_ALLOW_THREADS
  if (!memory) return PyErr_NoMemory();
  return PyLong_FromSize_t(used);
}

}  // namespace

PyMethodDef motion_methods[] = {
    {"motion_warp", motion_warp, METH_VARARGS,
     "(first, second, vectors, modes, (planes, rows, columns), kind, scale, bits, to, isa)."},
    {"motion_search", motion_search, METH_VARARGS,
     "(current, first, second, (rows, columns), before, modes_before, lmbda, effort, vectors, "
     "modes, isa)."},
    {"motion_encode", motion_encode, METH_VARARGS,
     "(vectors, modes, before, modes_before, (rows, columns)): bytes."},
    {"motion_decode", motion_decode, METH_VARARGS,
     "(data, before, modes_before, (rows, columns), vectors, modes): bytes that were read."},
    {nullptr, nullptr, 0, nullptr},
};
