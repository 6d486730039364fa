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

}  // namespace

PyMethodDef memory_methods[] = {
    {"memory_prefer_large_pages", memory_prefer_large_pages, METH_VARARGS, "(buffer)."},
    {"memory_join", memory_join, METH_VARARGS, "(list of buffers): bytes."},
    {nullptr, nullptr, 0, nullptr},
};
