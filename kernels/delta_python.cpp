// delta.cpp for Python: buffers in, bytes out, the lock released while coding.
// delta.py has checked the arguments; what is checked again is what memory safety needs.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <new>

#include "delta.h"
#include "python_arguments.h"

namespace {

using latentpack::chosen;
using latentpack::failed;
using latentpack::View;
namespace delta = latentpack::delta;
using latentpack::Isa;
using latentpack::Prepared;
using latentpack::Status;

// Whether classes and tables fit: one row for each class, and two more with blocks.
bool fits(const delta::Layout& layout, const View& class_of, const Prepared& tables, bool blocks,
          delta::Coding& coding) {
  if (class_of.size() != size_t{1} << layout.bits) return false;
  const int top = *std::max_element(class_of.data(), class_of.data() + class_of.size());
  coding = {layout, class_of.data(), top + 1, blocks};
  return top + 1 + (blocks ? 2 : 0) <= tables.rows;
}

PyObject* delta_count(PyObject*, PyObject* args) {
  delta::Layout layout;
  View fresh, base, tokens, quiet, nibbles;
  int backend;
  if (!PyArg_ParseTuple(args, "(iiii)y*y*w*w*w*i", &layout.width, &layout.operation,
                        &layout.shift, &layout.bits, &fresh.view, &base.view, &tokens.view,
                        &quiet.view, &nibbles.view, &backend))
    return nullptr;
  const size_t fields = size_t{1} << layout.bits;
  if (!layout.legal() || fresh.size() != base.size() || fresh.size() % layout.width ||
      tokens.size() != fields * 2048 || quiet.size() != fields * 8 || nibbles.size() != 128)
    return failed("arrays and counts do not fit");
  Py_BEGIN_ALLOW_THREADS
  delta::count(layout, fresh.data(), base.data(), fresh.size() / layout.width,
               reinterpret_cast<uint64_t*>(tokens.data()),
               reinterpret_cast<uint64_t*>(quiet.data()),
               reinterpret_cast<uint64_t*>(nibbles.data()), chosen(backend));
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}

PyObject* delta_encode(PyObject*, PyObject* args) {
  delta::Layout layout;
  delta::Coding coding;
  PyObject* capsule;
  View class_of, fresh, base;
  int blocks, lanes, backend;
  if (!PyArg_ParseTuple(args, "(iiii)Oy*y*y*pii", &layout.width, &layout.operation, &layout.shift,
                        &layout.bits, &capsule, &class_of.view, &fresh.view, &base.view, &blocks,
                        &lanes, &backend))
    return nullptr;
  auto* tables = static_cast<Prepared*>(PyCapsule_GetPointer(capsule, "latentpack.rans.prepared"));
  if (!tables) return nullptr;
  if (!layout.legal() || fresh.size() != base.size() || fresh.size() % layout.width ||
      lanes < 1 || lanes > latentpack::kMaxLanes || (lanes & (lanes - 1)) ||
      !fits(layout, class_of, *tables, blocks, coding))
    return failed("arrays, classes and tables do not fit");
  latentpack::Encoded stream;
  std::vector<uint8_t> raw;
  Status status = Status::kNoMemory;
  Py_BEGIN_ALLOW_THREADS
  try {
    status = delta::encode(coding, *tables, chosen(backend), fresh.data(), base.data(),
                           fresh.size() / layout.width, lanes, stream, raw);
  } catch (const std::bad_alloc&) {
  }
  Py_END_ALLOW_THREADS
  if (status == Status::kNoMemory) return PyErr_NoMemory();
  if (status != Status::kOk) return failed("the tables do not code these arrays");
  const size_t head = stream.lanes ? 1 + 4 * static_cast<size_t>(stream.lanes) : 0;
  PyObject* bytes =
      PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(head + 2 * stream.count));
  if (!bytes) return nullptr;
  if (head) {
    char* to = PyBytes_AsString(bytes);
    *to = static_cast<char>(__builtin_ctz(static_cast<unsigned>(stream.lanes)));
    std::memcpy(to + 1, stream.states, head - 1);
    latentpack::reverse_words(stream.words.data(), stream.count, to + head);
  }
  return Py_BuildValue("(Ny#)", bytes, reinterpret_cast<const char*>(raw.data()),
                       static_cast<Py_ssize_t>(raw.size()));
}

PyObject* delta_decode(PyObject*, PyObject* args) {
  delta::Layout layout;
  delta::Coding coding;
  PyObject* capsule;
  View class_of, stream, raw, base, out;
  int blocks, backend;
  if (!PyArg_ParseTuple(args, "(iiii)Oy*y*y*y*pw*i", &layout.width, &layout.operation,
                        &layout.shift, &layout.bits, &capsule, &class_of.view, &stream.view,
                        &raw.view, &base.view, &blocks, &out.view, &backend))
    return nullptr;
  auto* tables = static_cast<Prepared*>(PyCapsule_GetPointer(capsule, "latentpack.rans.prepared"));
  if (!tables) return nullptr;
  if (!layout.legal() || out.size() != base.size() || base.size() % layout.width ||
      !fits(layout, class_of, *tables, blocks, coding))
    return failed("arrays, classes and tables do not fit");
  const char* error = nullptr;
  bool memory = false;
  Py_BEGIN_ALLOW_THREADS
  try {
    error = delta::decode(coding, *tables, chosen(backend), stream.data(), stream.size(),
                          raw.data(), raw.size(), base.data(), base.size() / layout.width,
                          out.data());
  } catch (const std::bad_alloc&) {
    memory = true;
  }
  Py_END_ALLOW_THREADS
  if (memory) return PyErr_NoMemory();
  return PyUnicode_FromString(error ? error : "");
}

}  // namespace

PyMethodDef delta_methods[] = {
    {"delta_count", delta_count, METH_VARARGS,
     "(layout, new, base, tokens, quiet, nibbles, isa): adds to the counts."},
    {"delta_encode", delta_encode, METH_VARARGS,
     "(layout, tables, class_of, new, base, blocks, lanes, isa): (stream, raw)."},
    {"delta_decode", delta_decode, METH_VARARGS,
     "(layout, tables, class_of, stream, raw, base, blocks, out, isa): what is wrong, or ''."},
    {nullptr, nullptr, 0, nullptr},
};
