// fit.cpp for Python: buffers in, buffers filled, the lock released meanwhile.
// fit.py has checked the arguments; what is checked again is what memory safety needs.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <new>

#include "fit.h"
#include "python_arguments.h"

namespace {

using latentpack::chosen;
using latentpack::failed;
using latentpack::View;
namespace fit = latentpack::fit;
using latentpack::Decoding;
using latentpack::Isa;
using latentpack::Prepared;

constexpr Py_ssize_t kMaxSide = 1 << 24;

bool legal_size(Py_ssize_t height, Py_ssize_t width, const View& grids) {
  return height > 0 && width > 0 && height <= kMaxSide && width <= kMaxSide &&
         grids.count<int16_t>() ==
             fit::grid_elements(static_cast<size_t>(height), static_cast<size_t>(width));
}

bool legal_model(int taps, int hidden, const View& arrays) {
  return taps >= 1 && taps <= fit::kMaxTaps && hidden >= fit::kTile && hidden <= fit::kMaxHidden &&
         hidden % fit::kTile == 0 && arrays.count<int32_t>() == fit::Model::numbers(taps, hidden);
}

PyObject* fit_symbols(PyObject*, PyObject* args) {
  int taps, hidden, threads, backend;
  unsigned coded;
  Py_ssize_t height, width;
  View arrays, grids, symbols, index;
  if (!PyArg_ParseTuple(args, "(iiy*)y*(nn)Iw*w*ii", &taps, &hidden, &arrays.view, &grids.view,
                        &height, &width, &coded, &symbols.view, &index.view, &threads, &backend))
    return nullptr;
  if (!legal_model(taps, hidden, arrays) || !legal_size(height, width, grids))
    return failed("arrays and counts do not fit");
  const auto h = static_cast<size_t>(height), w = static_cast<size_t>(width);
  size_t n = 0;
  for (int k = 0; k < fit::kGrids; ++k)
    if (coded >> k & 1) n += fit::rows_of(h, k) * fit::rows_of(w, k);
  if (symbols.count<int16_t>() != n || index.size() != n)
    return failed("not the number of symbols");
  bool memory = true;
  Py_BEGIN_ALLOW_THREADS
  try {
    const fit::Model model(taps, hidden, arrays.as<int32_t>());
    fit::symbols(model, chosen(backend), grids.as<int16_t>(), h, w, coded, threads,
                 symbols.as<int16_t>(), index.data());
  } catch (const std::bad_alloc&) {
    memory = false;
  }
  Py_END_ALLOW_THREADS
  if (!memory) return PyErr_NoMemory();
  Py_RETURN_NONE;
}

PyObject* fit_decode(PyObject*, PyObject* args) {
  PyObject* capsule;
  int taps, hidden, backend;
  unsigned coded;
  Py_ssize_t height, width, skip;
  View arrays, state, words, grids;
  if (!PyArg_ParseTuple(args, "(iiy*)Ow*y*n(nn)Iw*i", &taps, &hidden, &arrays.view, &capsule,
                        &state.view, &words.view, &skip, &height, &width, &coded, &grids.view,
                        &backend))
    return nullptr;
  auto* tables = static_cast<Prepared*>(PyCapsule_GetPointer(capsule, latentpack::kPreparedCapsule));
  if (!tables) return nullptr;
  if (!legal_model(taps, hidden, arrays) || !legal_size(height, width, grids) ||
      state.size() != sizeof(Decoding) || skip < 0 || skip > words.view.len ||
      tables->rows != fit::kScales * fit::kFractions || !tables->uncoded.empty())
    return failed("arrays and counts do not fit");
  Decoding decoding;
  std::memcpy(&decoding, state.view.buf, sizeof decoding);
  const size_t bytes = (words.size() - static_cast<size_t>(skip)) & ~size_t{1};
  const uint32_t lanes = decoding.lanes;
  if (lanes > latentpack::kMaxLanes || (lanes & (lanes - 1)) ||
      (lanes && decoding.lane >= lanes) || decoding.at > bytes)
    return failed("not the state of a decoder");
  int wrong = static_cast<int>(latentpack::Status::kNoMemory);
  Py_BEGIN_ALLOW_THREADS
  try {
    const fit::Model model(taps, hidden, arrays.as<int32_t>());
    wrong = fit::decode(model, *tables, chosen(backend), decoding, words.data() + skip, bytes,
                        static_cast<size_t>(height), static_cast<size_t>(width), coded,
                        grids.as<int16_t>());
  } catch (const std::bad_alloc&) {
  }
  Py_END_ALLOW_THREADS
  if (wrong == static_cast<int>(latentpack::Status::kNoMemory)) return PyErr_NoMemory();
  std::memcpy(state.view.buf, &decoding, sizeof decoding);
  return PyLong_FromLong(wrong);
}

PyObject* fit_synthesise(PyObject*, PyObject* args) {
  int width_of_net, colours, threads, backend;
  Py_ssize_t height, width;
  View arrays, grids, pixels;
  if (!PyArg_ParseTuple(args, "(iiy*)y*(nn)w*ii", &width_of_net, &colours, &arrays.view,
                        &grids.view, &height, &width, &pixels.view, &threads, &backend))
    return nullptr;
  if (width_of_net < 1 || width_of_net > 1024 || (colours != 1 && colours != fit::kMaxColours) ||
      arrays.count<float>() != fit::Net::numbers(width_of_net, colours) ||
      !legal_size(height, width, grids) ||
      pixels.size() != static_cast<size_t>(colours) * static_cast<size_t>(height) *
                           static_cast<size_t>(width))
    return failed("arrays and counts do not fit");
  bool memory = true;
  Py_BEGIN_ALLOW_THREADS
  try {
    const fit::Net net(width_of_net, colours, arrays.as<float>());
    fit::synthesise(net, chosen(backend), grids.as<int16_t>(), static_cast<size_t>(height),
                    static_cast<size_t>(width), threads, pixels.data());
  } catch (const std::bad_alloc&) {
    memory = false;
  }
  Py_END_ALLOW_THREADS
  if (!memory) return PyErr_NoMemory();
  Py_RETURN_NONE;
}

}  // namespace

PyMethodDef fit_methods[] = {
    {"fit_symbols", fit_symbols, METH_VARARGS,
     "((taps, hidden, arrays), grids, (height, width), coded, symbols, index, threads, isa)."},
    {"fit_decode", fit_decode, METH_VARARGS,
     "((taps, hidden, arrays), tables, state, data, skip, (height, width), coded, grids, isa): "
     "a status."},
    {"fit_synthesise", fit_synthesise, METH_VARARGS,
     "((width, colours, arrays), grids, (height, width), pixels, threads, isa)."},
    {nullptr, nullptr, 0, nullptr},
};
