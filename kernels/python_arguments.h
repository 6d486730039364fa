// What the functions for Python share: buffers as arguments, the instruction set, an error.
#pragma once

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#include <cstddef>
#include <cstdint>

#include "rans.h"

namespace latentpack {

// A buffer that is released at the end of its scope.
struct View {
  Py_buffer view{};
  View() = default;
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  ~View() {
    if (view.obj) PyBuffer_Release(&view);
  }
  uint8_t* data() const { return static_cast<uint8_t*>(view.buf); }
  size_t size() const { return static_cast<size_t>(view.len); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(view.buf);
  }
  template <typename T>
  size_t count() const {
    return size() / sizeof(T);
  }
};

// The instruction set of this number, or the best there is.
inline Isa chosen(int backend) {
  const Isa best = best_isa();
  return backend < 0 || backend > static_cast<int>(best) ? best : static_cast<Isa>(backend);
}

// A ValueError.
inline PyObject* failed(const char* message) {
  PyErr_SetString(PyExc_ValueError, message);
  return nullptr;
}

}  // namespace latentpack
