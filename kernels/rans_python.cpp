// rans.cpp for Python: buffers in, bytes out, the lock released while coding.
// rans.py has checked types and shapes; what is checked again here is what memory safety needs.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <memory>
#include <new>

#include "rans.h"
#include "python_arguments.h"

namespace {

using latentpack::chosen;
using latentpack::failed;
using latentpack::View;
using latentpack::Decoding;
using latentpack::Encoded;
using latentpack::Isa;
using latentpack::Prepared;
using latentpack::Status;

void destroy(PyObject* capsule) {
  delete static_cast<Prepared*>(PyCapsule_GetPointer(capsule, latentpack::kPreparedCapsule));
}

Prepared* prepared(PyObject* capsule) {
  return static_cast<Prepared*>(PyCapsule_GetPointer(capsule, latentpack::kPreparedCapsule));
}

PyObject* rans_isa(PyObject*, PyObject*) {
  return PyLong_FromLong(static_cast<long>(latentpack::best_isa()));
}

PyObject* rans_prepare(PyObject*, PyObject* args) {
  int precision;
  View offsets, lengths, freqs;
  if (!PyArg_ParseTuple(args, "iy*y*y*", &precision, &offsets.view, &lengths.view, &freqs.view)) {
    return nullptr;
  }
  const size_t rows = offsets.count<int32_t>(), entries = freqs.count<uint16_t>();
  int64_t sum = 0;
  bool legal = precision >= 1 && precision <= 16 && rows >= 1 && rows <= latentpack::kMaxRows &&
               lengths.count<int32_t>() == rows;
  for (size_t r = 0; legal && r < rows; ++r) {
    const int32_t length = lengths.as<int32_t>()[r];
    const int64_t offset = offsets.as<int32_t>()[r];
    legal = length >= 0 && length != 1;
    legal &= length == 0 || (offset >= -32768 && offset + length - 2 <= 32767);
    int64_t total = 0;
    for (int32_t k = 0; legal && k < length; ++k, ++sum) {
      legal = sum < static_cast<int64_t>(entries);
      if (legal) total += freqs.as<uint16_t>()[sum];
    }
    legal &= length == 0 || total == int64_t{1} << precision;
  }
  if (!legal || sum != static_cast<int64_t>(entries)) return failed("not a set of tables");
  std::unique_ptr<Prepared> tables;
  try {
    tables = std::make_unique<Prepared>();
    tables->build(precision, offsets.as<int32_t>(), lengths.as<int32_t>(),
                  static_cast<int>(rows), freqs.as<uint16_t>(), entries);
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  PyObject* capsule = PyCapsule_New(tables.get(), latentpack::kPreparedCapsule, destroy);
  if (capsule) tables.release();
  return capsule;
}

PyObject* rans_encode(PyObject*, PyObject* args) {
  PyObject* capsule;
  View symbols, index;
  int lanes, backend;
  if (!PyArg_ParseTuple(args, "Oy*y*ii", &capsule, &symbols.view, &index.view, &lanes, &backend)) {
    return nullptr;
  }
  Prepared* tables = prepared(capsule);
  if (!tables) return nullptr;
  const size_t n = index.count<uint8_t>();
  if (symbols.count<int16_t>() != n) return failed("symbols and index differ in length");
  if (lanes < 0 || lanes > latentpack::kMaxLanes || (lanes & (lanes - 1))) {
    return failed("lanes must be 0 or a power of two up to 32");
  }
  Encoded coded;
  Status status;
  const Isa isa = chosen(backend);
  Py_BEGIN_ALLOW_THREADS
  status = latentpack::encode(*tables, isa, symbols.as<int16_t>(), index.as<uint8_t>(), n, lanes,
                              coded);
  Py_END_ALLOW_THREADS
  if (status == Status::kNoMemory) return PyErr_NoMemory();
  if (status != Status::kOk) return PyLong_FromLong(static_cast<long>(status));
  const size_t head = coded.lanes ? 1 + 4 * static_cast<size_t>(coded.lanes) : 0;
  PyObject* bytes = PyBytes_FromStringAndSize(
      nullptr, static_cast<Py_ssize_t>(head + 2 * coded.count));
  if (!bytes || !head) return bytes;
  char* to = PyBytes_AsString(bytes);
  *to = static_cast<char>(__builtin_ctz(static_cast<unsigned>(coded.lanes)));
  std::memcpy(to + 1, coded.states, head - 1);
  latentpack::reverse_words(coded.words.data(), coded.count, to + head);
  return bytes;
}

PyObject* rans_decode(PyObject*, PyObject* args) {
  PyObject* capsule;
  View state, words, index, symbols;
  Py_ssize_t skip;
  int backend;
  if (!PyArg_ParseTuple(args, "Ow*y*ny*w*i", &capsule, &state.view, &words.view, &skip,
                        &index.view, &symbols.view, &backend)) {
    return nullptr;
  }
  Prepared* tables = prepared(capsule);
  if (!tables) return nullptr;
  const size_t n = index.count<uint8_t>();
  if (symbols.count<int16_t>() != n) return failed("symbols and index differ in length");
  if (state.view.len != sizeof(Decoding)) return failed("the state has the wrong size");
  if (skip < 0 || skip > words.view.len) return failed("the words start beyond the data");
  Decoding decoding;
  std::memcpy(&decoding, state.view.buf, sizeof decoding);
  const size_t bytes = static_cast<size_t>(words.view.len - skip) & ~size_t{1};
  const uint32_t lanes = decoding.lanes;
  if (lanes > latentpack::kMaxLanes || (lanes & (lanes - 1)) ||
      (lanes && decoding.lane >= lanes) || decoding.at > bytes) {
    return failed("not the state of a decoder");
  }
  Status status;
  const Isa isa = chosen(backend);
  Py_BEGIN_ALLOW_THREADS
  status = latentpack::decode(*tables, isa, decoding, words.as<uint8_t>() + skip, bytes,
                              index.as<uint8_t>(), n, symbols.as<int16_t>());
  Py_END_ALLOW_THREADS
  if (status == Status::kNoMemory) return PyErr_NoMemory();
  std::memcpy(state.view.buf, &decoding, sizeof decoding);
  return PyLong_FromLong(static_cast<long>(status));
}

PyObject* rans_quantise(PyObject*, PyObject* args) {
  PyObject *capsule, *given;
  View y, means, index, symbols, y_hat;
  int backend;
  if (!PyArg_ParseTuple(args, "Oy*Oy*w*w*i", &capsule, &y.view, &given, &index.view,
                        &symbols.view, &y_hat.view, &backend)) {
    return nullptr;
  }
  if (given != Py_None && PyObject_GetBuffer(given, &means.view, PyBUF_SIMPLE)) return nullptr;
  Prepared* tables = prepared(capsule);
  if (!tables) return nullptr;
  const size_t n = index.count<uint8_t>();
  if (y.count<float>() != n || symbols.count<int16_t>() != n || y_hat.count<float>() != n ||
      (means.view.obj && means.count<float>() != n)) {
    return failed("arrays differ in length");
  }
  bool done;
  const Isa isa = chosen(backend);
  Py_BEGIN_ALLOW_THREADS
  done = latentpack::quantise(*tables, isa, y.as<float>(), means.as<float>(),
                              index.as<uint8_t>(), n, symbols.as<int16_t>(), y_hat.as<float>());
  Py_END_ALLOW_THREADS
  return PyBool_FromLong(done);
}

PyObject* rans_rows(PyObject*, PyObject* args) {
  View scales, boundaries, rows;
  if (!PyArg_ParseTuple(args, "y*y*w*", &scales.view, &boundaries.view, &rows.view)) {
    return nullptr;
  }
  const size_t n = rows.count<uint8_t>(), count = boundaries.count<float>();
  if (scales.count<float>() != n || count > 255) return failed("arrays of wrong lengths");
  bool done;
  Py_BEGIN_ALLOW_THREADS
  done = latentpack::rows_of(scales.as<float>(), n, boundaries.as<float>(), count,
                             rows.as<uint8_t>());
  Py_END_ALLOW_THREADS
  return PyBool_FromLong(done);
}

PyObject* rans_normalise(PyObject*, PyObject* args) {
  int precision;
  View counts, freq;
  if (!PyArg_ParseTuple(args, "y*iw*", &counts.view, &precision, &freq.view)) return nullptr;
  const size_t n = counts.count<uint32_t>();
  if (precision < 1 || precision > 16 || freq.count<uint16_t>() != n) {
    return failed("precision must be 1 to 16, counts and freq of one length");
  }
  bool done;
  Py_BEGIN_ALLOW_THREADS
  done = latentpack::normalise(counts.as<uint32_t>(), n, precision, freq.as<uint16_t>());
  Py_END_ALLOW_THREADS
  return PyBool_FromLong(done);
}

}  // namespace

PyMethodDef rans_methods[] = {
    {"rans_isa", rans_isa, METH_NOARGS, "0 scalar, 1 AVX2, 2 AVX-512: the best of this machine."},
    {"rans_prepare", rans_prepare, METH_VARARGS, "(precision, offsets, lengths, freqs): tables."},
    {"rans_encode", rans_encode, METH_VARARGS,
     "(tables, symbols, index, lanes, isa): bytes, or a status."},
    {"rans_decode", rans_decode, METH_VARARGS,
     "(tables, state, data, skip, index, symbols, isa): a status."},
    {"rans_quantise", rans_quantise, METH_VARARGS,
     "(tables, y, means, index, symbols, y_hat, isa): whether all are numbers."},
    {"rans_rows", rans_rows, METH_VARARGS,
     "(scales, boundaries, rows): whether all are numbers."},
    {"rans_normalise", rans_normalise, METH_VARARGS, "(counts, precision, freq): done or not."},
    {nullptr, nullptr, 0, nullptr},
};
