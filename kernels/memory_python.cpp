// Large blocks of fresh memory for Python: with large pages where the system has them, because
// the first touch of each small page costs more than coding what is on it.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

constexpr uintptr_t kLargePage = uintptr_t{2} << 20;

void prefer_large_pages(void* data, size_t size) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + kLargePage - 1) & ~(kLargePage - 1);
  const uintptr_t last = (begin + size) & ~(kLargePage - 1);
  // Advice: where it is refused, small pages do.
  if (first < last) (void)madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)data;
  (void)size;
#endif
}

PyObject* memory_prefer_large_pages(PyObject*, PyObject* args) {
  Py_buffer view;
  if (!PyArg_ParseTuple(args, "w*", &view)) return nullptr;
  prefer_large_pages(view.buf, static_cast<size_t>(view.len));
  PyBuffer_Release(&view);
  Py_RETURN_NONE;
}

PyObject* memory_join(PyObject*, PyObject* args) {
  PyObject* parts;
  if (!PyArg_ParseTuple(args, "O!", &PyList_Type, &parts)) return nullptr;
  const Py_ssize_t count = PyList_Size(parts);
  std::vector<Py_buffer> views;
  size_t size = 0;
  bool readable = true;
  for (Py_ssize_t i = 0; i < count && readable; ++i) {
    Py_buffer view;
    readable = PyObject_GetBuffer(PyList_GetItem(parts, i), &view, PyBUF_SIMPLE) == 0;
    if (!readable) break;
    views.push_back(view);
    size += static_cast<size_t>(view.len);
  }
  PyObject* joined =
      readable ? PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size)) : nullptr;
  if (joined) {
    char* at = PyBytes_AsString(joined);
    prefer_large_pages(at, size);
    Py_BEGIN_ALLOW_THREADS
    for (const Py_buffer& view : views) {
      std::memcpy(at, view.buf, static_cast<size_t>(view.len));
      at += view.len;
    }
    Py_END_ALLOW_THREADS
  }
  for (Py_buffer& view : views) PyBuffer_Release(&view);
  return joined;
}

// A new bytes object that nobody else knows, in a capsule, and its memory.
constexpr const char* kNewBytes = "latentpack.memory.new_bytes";

void drop_new_bytes(PyObject* capsule) {
  Py_XDECREF(static_cast<PyObject*>(PyCapsule_GetContext(capsule)));
}

PyObject* memory_new_bytes(PyObject*, PyObject* args) {
  Py_ssize_t size;
  if (!PyArg_ParseTuple(args, "n", &size)) return nullptr;
  PyObject* bytes = PyBytes_FromStringAndSize(nullptr, size);
  if (!bytes) return nullptr;
  char* data = PyBytes_AsString(bytes);
  prefer_large_pages(data, static_cast<size_t>(size));
  PyObject* capsule = PyCapsule_New(data, kNewBytes, drop_new_bytes);
  if (!capsule) {
    Py_DECREF(bytes);
    return nullptr;
  }
  PyCapsule_SetContext(capsule, bytes);
  PyObject* view = PyMemoryView_FromMemory(data, size, PyBUF_WRITE);
  if (!view) {
    Py_DECREF(capsule);
    return nullptr;
  }
  return Py_BuildValue("(NN)", capsule, view);
}

PyObject* memory_finish_bytes(PyObject*, PyObject* args) {
  PyObject* capsule;
  Py_ssize_t size;
  if (!PyArg_ParseTuple(args, "On", &capsule, &size)) return nullptr;
  if (!PyCapsule_GetPointer(capsule, kNewBytes)) return nullptr;
  auto* bytes = static_cast<PyObject*>(PyCapsule_GetContext(capsule));
  if (!bytes || size < 0 || size > PyBytes_Size(bytes)) {
    PyErr_SetString(PyExc_ValueError, "the bytes are finished already, or not so many");
    return nullptr;
  }
  PyCapsule_SetContext(capsule, nullptr);
  // Made shorter in place: the pages behind its end were never touched, and take no memory.
  PyBytes_AsString(bytes)[size] = 0;
  Py_SET_SIZE(reinterpret_cast<PyVarObject*>(bytes), size);
  return bytes;
}

}  // namespace

PyMethodDef memory_methods[] = {
    {"memory_new_bytes", memory_new_bytes, METH_VARARGS, "(size): (token, writable view)."},
    {"memory_finish_bytes", memory_finish_bytes, METH_VARARGS, "(token, size): bytes."},
    {"memory_prefer_large_pages", memory_prefer_large_pages, METH_VARARGS, "(buffer)."},
    {"memory_join", memory_join, METH_VARARGS, "(list of buffers): bytes."},
    {nullptr, nullptr, 0, nullptr},
};
