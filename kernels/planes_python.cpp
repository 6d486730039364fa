// planes for Python: buffers in and out, the lock released while coding.
// planes.py has checked the arguments; what is checked again is what memory safety needs.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <new>

#include "planes.h"
#include "python_arguments.h"
#include "xxh3.h"

namespace {

using latentpack::chosen;
using latentpack::failed;
using latentpack::View;
using latentpack::Isa;
namespace planes = latentpack::planes;

// Runs `work` without the interpreter lock; false, with an error set, if it threw.
template <typename Work>
bool unlocked(const Work& work) {
  std::string error;
  bool memory = false;
  Py_BEGIN_ALLOW_THREADS
  try {
    work();
  } catch (const std::bad_alloc&) {
    memory = true;
  } catch (const std::exception& caught) {
    error = caught.what();
  }
  Py_END_ALLOW_THREADS
  if (memory) PyErr_NoMemory();
  else if (!error.empty()) PyErr_SetString(PyExc_RuntimeError, error.c_str());
  return !memory && error.empty();
}

PyObject* planes_encode(PyObject*, PyObject* args) {
  View data, out;
  int width, layout, speed, chunk_log2, threads, backend;
  if (!PyArg_ParseTuple(args, "y*iiiiw*ii", &data.view, &width, &layout, &speed, &chunk_log2,
                        &out.view, &threads, &backend))
    return nullptr;
  if (!planes::plane_count(layout, width) || data.size() % width || out.size() < data.size())
    return failed("data, layout and out do not fit");
  if (chunk_log2 < planes::kMinChunkLog2 || chunk_log2 > planes::kMaxChunkLog2)
    return failed("chunk_log2 must be 6 to 16");
  std::string head;
  size_t used = 0;
  if (!unlocked([&] {
        planes::encode(data.data(), data.size() / width, width, layout, speed, chunk_log2,
                       chosen(backend), threads, out.data(), head, used);
      }))
    return nullptr;
  return Py_BuildValue("(y#n)", head.data(), static_cast<Py_ssize_t>(head.size()),
                       static_cast<Py_ssize_t>(used));
}

// A head that has been checked, and what it was checked for.
struct Parsed {
  planes::Head head;
  size_t coded_bytes, n;
  int width, layout;
};

constexpr const char* kCapsule = "latentpack.planes.parsed";

void destroy(PyObject* capsule) {
  delete static_cast<Parsed*>(PyCapsule_GetPointer(capsule, kCapsule));
}

PyObject* planes_parse(PyObject*, PyObject* args) {
  View head;
  Py_ssize_t coded_bytes, n;
  int width, layout;
  if (!PyArg_ParseTuple(args, "y*nnii", &head.view, &coded_bytes, &n, &width, &layout))
    return nullptr;
  if (n < 0 || coded_bytes < 0 || !planes::plane_count(layout, width))
    return failed("n, width and layout do not fit");
  std::string error;
  std::unique_ptr<Parsed> parsed;
  if (!unlocked([&] {
        parsed = std::make_unique<Parsed>();
        parsed->coded_bytes = static_cast<size_t>(coded_bytes);
        parsed->n = static_cast<size_t>(n);
        parsed->width = width;
        parsed->layout = layout;
        error = planes::parse_head(head.data(), head.size(), parsed->coded_bytes, parsed->n,
                                   width, layout, parsed->head);
      }))
    return nullptr;
  if (!error.empty())
    return PyUnicode_FromStringAndSize(error.data(), static_cast<Py_ssize_t>(error.size()));
  PyObject* capsule = PyCapsule_New(parsed.get(), kCapsule, destroy);
  if (capsule) parsed.release();
  return capsule;
}

PyObject* planes_decode(PyObject*, PyObject* args) {
  PyObject* capsule;
  View coded, out;
  int threads, backend;
  Py_ssize_t first, last;
  if (!PyArg_ParseTuple(args, "Oy*nnw*ii", &capsule, &coded.view, &first, &last, &out.view,
                        &threads, &backend))
    return nullptr;
  const auto* parsed = static_cast<const Parsed*>(PyCapsule_GetPointer(capsule, kCapsule));
  if (!parsed) return nullptr;
  if (coded.size() != parsed->coded_bytes) return failed("the head is that of other coded bytes");
  if (first < 0 || last < first || static_cast<size_t>(last) > parsed->n)
    return failed("there are no such elements");
  if (out.size() != static_cast<size_t>(last - first) * parsed->width)
    return failed("out has not the elements' size");
  std::string error;
  if (!unlocked([&] {
        error = planes::decode(parsed->head, coded.data(), coded.size(), parsed->n, parsed->width,
                               parsed->layout, static_cast<size_t>(first),
                               static_cast<size_t>(last), chosen(backend), threads, out.data());
      }))
    return nullptr;
  return PyUnicode_FromStringAndSize(error.data(), static_cast<Py_ssize_t>(error.size()));
}

PyObject* xxh3_64(PyObject*, PyObject* args) {
  View data;
  int backend;
  if (!PyArg_ParseTuple(args, "y*i", &data.view, &backend)) return nullptr;
  return PyLong_FromUnsignedLongLong(
      latentpack::xxh3::hash64(data.data(), data.size(), chosen(backend)));
}

}  // namespace

PyMethodDef planes_methods[] = {
    {"planes_encode", planes_encode, METH_VARARGS,
     "(data, width, layout, speed, chunk_log2, out, threads, isa): (head, bytes used of out)."},
    {"planes_parse", planes_parse, METH_VARARGS,
     "(head, coded_bytes, n, width, layout): a parsed head, or what is wrong."},
    {"planes_decode", planes_decode, METH_VARARGS,
     "(parsed, coded, first, last, out, threads, isa): what is wrong, or ''."},
    {"xxh3_64", xxh3_64, METH_VARARGS, "(data, isa): the hash."},
    {nullptr, nullptr, 0, nullptr},
};
