// The extension module: one table of functions over CPython's stable ABI.
#include <Python.h>

static PyMethodDef methods[] = {
    {nullptr, nullptr, 0, nullptr},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_cpp", "Compiled kernels of latentpack.", -1, methods,
    nullptr, nullptr, nullptr, nullptr,
};

PyMODINIT_FUNC PyInit__cpp() { return PyModule_Create(&definition); }
