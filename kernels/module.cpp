// The extension module over CPython's stable ABI. Every *_python.cpp contributes one table.
#include <Python.h>

extern PyMethodDef channels_methods[];
extern PyMethodDef codes_methods[];
extern PyMethodDef delta_methods[];
extern PyMethodDef fit_methods[];
extern PyMethodDef fit_train_methods[];
extern PyMethodDef memory_methods[];
extern PyMethodDef motion_methods[];
extern PyMethodDef pixels_methods[];
extern PyMethodDef planes_methods[];
extern PyMethodDef rans_methods[];
extern PyMethodDef sounds_methods[];

static PyMethodDef* const tables[] = {
    channels_methods,
    codes_methods,
    delta_methods,
    fit_methods,
    fit_train_methods,
    memory_methods,
    motion_methods,
    pixels_methods,
    planes_methods,
    rans_methods,
    sounds_methods,
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_cpp", "Compiled kernels of latentpack.", -1, nullptr,
    nullptr, nullptr, nullptr, nullptr,
};

PyMODINIT_FUNC PyInit__cpp() {
  PyObject* module = PyModule_Create(&definition);
  if (!module) return nullptr;
  for (PyMethodDef* methods : tables) {
    if (PyModule_AddFunctions(module, methods) < 0) {
      Py_DECREF(module);
      return nullptr;
    }
  }
  return module;
}
