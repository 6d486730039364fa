// pixels for Python: arrays in and out, the lock released while coding.
// pixels.py has checked the arguments; what is checked again is what memory safety needs.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <new>
#include <vector>

#include "pixels.h"
#include "python_arguments.h"

namespace {

using latentpack::chosen;
using latentpack::failed;
using latentpack::View;
namespace pixels = latentpack::pixels;

constexpr Py_ssize_t kMaxPlanes = 4;

// The planes of `samples`, uint16 [planes, height, width], each with (peak, error, links). False
// with an error set.
bool take(const View& samples, int height, int width, PyObject* list,
          std::vector<pixels::Plane>& planes) {
  const Py_ssize_t count = PyList_Size(list);
  if (count < 1 || count > kMaxPlanes || height < 1 || width < 1)
    return failed("expected 1 to 4 planes with samples");
  const auto area = static_cast<size_t>(height) * static_cast<size_t>(width);
  if (samples.size() / 2 / area != static_cast<size_t>(count) || samples.size() % (2 * area))
    return failed("the samples do not fill the planes");
  for (Py_ssize_t i = 0; i < count; ++i) {
    pixels::Plane plane{samples.as<uint16_t>() + i * area, 0, 0, 0};
    if (!PyArg_ParseTuple(PyList_GetItem(list, i), "iii", &plane.peak, &plane.error, &plane.links))
      return false;
    if (plane.peak < 1 || plane.peak > 65535 || plane.error < 0 || plane.error > 255 ||
        plane.links < 0 || plane.links > 2 || plane.links > i)
      return failed("a plane's peak, error or links are out of range");
    planes.push_back(plane);
  }
  return true;
}

PyObject* pixels_encode(PyObject*, PyObject* args) {
  View samples;
  PyObject* list;
  int height, width, isa;
  if (!PyArg_ParseTuple(args, "w*iiO!i", &samples.view, &height, &width, &PyList_Type, &list, &isa))
    return nullptr;
  std::vector<pixels::Plane> planes;
  if (!take(samples, height, width, list, planes)) return nullptr;
  for (const pixels::Plane& plane : planes)
    for (size_t i = 0; i < static_cast<size_t>(height) * static_cast<size_t>(width); ++i)
      if (plane.samples[i] > plane.peak) return failed("a sample is above its peak");
  std::vector<uint8_t> out;
  bool memory = true;
  Py_BEGIN_ALLOW_THREADS
  try {
    out = pixels::encode(chosen(isa), {height, width, planes.data(), static_cast<int>(planes.size())});
  } catch (const std::bad_alloc&) {
    memory = false;
  }
  Py_END_ALLOW_THREADS
  if (!memory) return PyErr_NoMemory();
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(out.data()),
                                   static_cast<Py_ssize_t>(out.size()));
}

PyObject* pixels_decode(PyObject*, PyObject* args) {
  View data, samples;
  PyObject* list;
  int height, width, isa;
  if (!PyArg_ParseTuple(args, "y*w*iiO!i", &data.view, &samples.view, &height, &width, &PyList_Type,
                        &list, &isa))
    return nullptr;
  std::vector<pixels::Plane> planes;
  if (!take(samples, height, width, list, planes)) return nullptr;
  bool memory = true;
  Py_BEGIN_ALLOW_THREADS
  try {
    pixels::decode(chosen(isa), {height, width, planes.data(), static_cast<int>(planes.size())},
                   data.data(), data.size());
  } catch (const std::bad_alloc&) {
    memory = false;
  }
  Py_END_ALLOW_THREADS
  if (!memory) return PyErr_NoMemory();
  Py_RETURN_NONE;
}

}  // namespace

PyMethodDef pixels_methods[] = {
    {"pixels_encode", pixels_encode, METH_VARARGS,
     "(samples, height, width, [(peak, error, links)], isa): bytes; samples become the decoded."},
    {"pixels_decode", pixels_decode, METH_VARARGS,
     "(data, samples, height, width, [(peak, error, links)], isa): fills the samples."},
    {nullptr, nullptr, 0, nullptr},
};
