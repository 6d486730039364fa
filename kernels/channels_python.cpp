// channels for Python: strided arrays in and out, the lock released while coding.
// channels.py has checked dtypes and shapes; what is checked again is what memory safety needs.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <memory>
#include <new>
#include <string>
#include <vector>

#include "channels.h"
#include "python_arguments.h"

namespace {

using latentpack::chosen;
using latentpack::failed;
namespace channels = latentpack::channels;
using latentpack::Isa;
using latentpack::Prepared;
using latentpack::Status;

// The arrays of a call: a list of (elements [rows, groups, width], classes, tops).
class Arrays {
 public:
  Arrays() = default;
  Arrays(const Arrays&) = delete;
  Arrays& operator=(const Arrays&) = delete;
  ~Arrays() {
    for (const auto& view : views_) PyBuffer_Release(view.get());
  }

  // False with an error set. All elements must have one size, which `bytes` becomes.
  bool take(PyObject* list, int layout, bool writable) {
    const Py_ssize_t count = PyList_Size(list);
    if (count < 1) return failed("expected at least one part");
    for (Py_ssize_t i = 0; i < count; ++i) {
      PyObject *elements, *classes, *tops;
      if (!PyArg_ParseTuple(PyList_GetItem(list, i), "OOO", &elements, &classes, &tops))
        return false;
      const Py_buffer* e = view(elements, writable ? PyBUF_STRIDED : PyBUF_STRIDED_RO);
      const Py_buffer* c = e ? view(classes, PyBUF_SIMPLE) : nullptr;
      const Py_buffer* t = c ? view(tops, PyBUF_SIMPLE) : nullptr;
      if (!t || !add(*e, *c, *t, layout)) return false;
    }
    return true;
  }

  // A buffer of an object, held as long as this is; nullptr with an error set.
  const Py_buffer* view(PyObject* object, int flags) {
    auto got = std::make_unique<Py_buffer>();
    if (PyObject_GetBuffer(object, got.get(), flags) != 0) return nullptr;
    views_.push_back(std::move(got));
    return views_.back().get();
  }

  int bytes = 0;
  std::vector<channels::Part> parts;

 private:

  bool add(const Py_buffer& e, const Py_buffer& c, const Py_buffer& t, int layout) {
    if (e.ndim != 3 || (e.itemsize != 1 && e.itemsize != 2 && e.itemsize != 4))
      return failed("expected elements of 1, 2 or 4 bytes in three dimensions");
    if (bytes && e.itemsize != bytes) return failed("parts of different element sizes");
    bytes = static_cast<int>(e.itemsize);
    if (e.len > 0 && e.shape[2] > 1 && e.strides[2] != e.itemsize)
      return failed("the last stride is not 1");
    channels::Part part{static_cast<uint8_t*>(e.buf),
                        static_cast<size_t>(e.shape[0]),
                        static_cast<size_t>(e.shape[1]),
                        static_cast<size_t>(e.shape[2]),
                        e.strides[0],
                        e.strides[1],
                        static_cast<const uint8_t*>(c.buf),
                        static_cast<const uint8_t*>(t.buf)};
    const size_t tops = layout == latentpack::planes::kFloat ? part.channels() : 0;
    if (static_cast<size_t>(c.len) != channels::row_symbols(part, layout))
      return failed("not one class per symbol of a row");
    if (static_cast<size_t>(t.len) != tops) return failed("not one top per channel");
    parts.push_back(part);
    return true;
  }

  std::vector<std::unique_ptr<Py_buffer>> views_;
};

bool fits(int layout, int bytes) {
  return layout == latentpack::planes::kBytePlanes ||
         (layout == latentpack::planes::kFloat && bytes >= 2);
}

Prepared* prepared(PyObject* capsule) {
  return static_cast<Prepared*>(PyCapsule_GetPointer(capsule, latentpack::kPreparedCapsule));
}

PyObject* channels_encode(PyObject*, PyObject* args) {
  PyObject *capsule, *list;
  Py_buffer out;
  int layout, lanes, isa;
  if (!PyArg_ParseTuple(args, "OiO!iiw*", &capsule, &layout, &PyList_Type, &list, &lanes, &isa,
                        &out))
    return nullptr;
  const Prepared* tables = prepared(capsule);
  Arrays arrays;
  const bool taken = tables && arrays.take(list, layout, false);
  const auto room = static_cast<size_t>(out.len);
  const char* wrong = nullptr;
  if (taken) {
    if (!fits(layout, arrays.bytes)) wrong = "the layout does not fit the elements";
    else if (lanes < 1 || lanes > latentpack::kMaxLanes || (lanes & (lanes - 1)))
      wrong = "lanes must be a power of two up to 32";
    else if (room < channels::rest_bytes(arrays.parts, arrays.bytes))
      wrong = "out has no room for the plain planes";
  }
  Status status = Status::kNoMemory;
  size_t size = 0;
  if (taken && !wrong) {
    Py_BEGIN_ALLOW_THREADS
    try {
      status = channels::encode(*tables, chosen(isa), layout, arrays.bytes, arrays.parts, lanes,
                                static_cast<uint8_t*>(out.buf), room, size);
    } catch (const std::bad_alloc&) {
    }
    Py_END_ALLOW_THREADS
  }
  PyBuffer_Release(&out);
  if (!taken) return nullptr;
  if (wrong) return failed(wrong);
  if (status == Status::kNoMemory) return PyErr_NoMemory();
  if (status != Status::kOk) return failed(channels::kBadClass);
  return PyLong_FromSize_t(size);
}

PyObject* channels_decode(PyObject*, PyObject* args) {
  PyObject *capsule, *list;
  int layout, isa;
  if (!PyArg_ParseTuple(args, "OiO!i", &capsule, &layout, &PyList_Type, &list, &isa))
    return nullptr;
  Prepared* tables = prepared(capsule);
  if (!tables) return nullptr;
  const auto count = static_cast<size_t>(PyList_Size(list));
  std::vector<Arrays> arrays(count);
  std::vector<channels::Coded> blocks(count);
  for (size_t i = 0; i < count; ++i) {
    PyObject *data, *parts;
    if (!PyArg_ParseTuple(PyList_GetItem(list, static_cast<Py_ssize_t>(i)), "OO!", &data,
                          &PyList_Type, &parts))
      return nullptr;
    if (!arrays[i].take(parts, layout, true)) return nullptr;
    const Py_buffer* view = arrays[i].view(data, PyBUF_SIMPLE);
    if (!view) return nullptr;
    if (!fits(layout, arrays[i].bytes) || arrays[i].bytes != arrays[0].bytes)
      return failed("the layout does not fit the elements");
    blocks[i] = {static_cast<const uint8_t*>(view->buf), static_cast<size_t>(view->len),
                 arrays[i].parts};
  }
  const char* error = nullptr;
  bool memory = true;
  Py_BEGIN_ALLOW_THREADS
  try {
    if (count) {
      error = channels::decode(*tables, chosen(isa), layout, arrays[0].bytes, blocks);
    }
  } catch (const std::bad_alloc&) {
    memory = false;
  }
  Py_END_ALLOW_THREADS
  if (!memory) return PyErr_NoMemory();
  if (error == channels::kBadClass) return failed(error);
  return PyUnicode_FromString(error ? error : "");
}

}  // namespace

PyMethodDef channels_methods[] = {
    {"channels_encode", channels_encode, METH_VARARGS,
     "(tables, layout, [(elements, classes, tops)], lanes, isa, out): the size."},
    {"channels_decode", channels_decode, METH_VARARGS,
     "(tables, layout, [(data, [(elements, classes, tops)])], isa): an error's text, or \"\"."},
    {nullptr, nullptr, 0, nullptr},
};
