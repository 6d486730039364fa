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

// The models of a picture, or of a frame's passes where taps is 0.
struct Models {
  int taps, temporal, hidden;
  View arrays;

  int inputs() const {
    return (taps ? taps : fit::kNear + fit::kPasses - 1) + fit::kCross + temporal;
  }
  bool legal() const {
    return taps >= 0 && taps <= fit::kMaxTaps &&
           (temporal == 0 || (temporal == fit::kTemporal && !taps)) && hidden >= fit::kTile &&
           hidden <= fit::kMaxHidden && hidden % fit::kTile == 0 &&
           arrays.count<int32_t>() == fit::Model::numbers(inputs(), hidden);
  }
  fit::Model causal() const { return fit::causal_model(taps, hidden, arrays.as<int32_t>()); }
  std::vector<fit::Model> passes() const {
    return fit::pass_models(temporal, hidden, arrays.as<int32_t>());
  }
};

// The grids of a reference: empty where models take none.
struct Reference {
  View view;
  bool legal(const Models& models, const View& grids) const {
    return view.size() == (models.temporal ? grids.size() : 0);
  }
  const int16_t* grids() const { return view.size() ? view.as<int16_t>() : nullptr; }
};

PyObject* fit_symbols(PyObject*, PyObject* args) {
  int threads, backend;
  unsigned coded;
  Py_ssize_t height, width;
  Models models;
  Reference reference;
  View grids, symbols, index;
  if (!PyArg_ParseTuple(args, "(iiiy*)y*y*(nn)Iw*w*ii", &models.taps, &models.temporal,
                        &models.hidden, &models.arrays.view, &grids.view, &reference.view.view,
                        &height, &width, &coded, &symbols.view, &index.view, &threads, &backend))
    return nullptr;
  if (!models.legal() || !legal_size(height, width, grids) || !reference.legal(models, grids))
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
    const Isa isa = chosen(backend);
    const auto *from = grids.as<int16_t>();
    auto* to = symbols.as<int16_t>();
    if (models.taps)
      fit::symbols(models.causal(), isa, from, h, w, coded, threads, to, index.data());
    else
      fit::frame_symbols(models.passes(), isa, from, reference.grids(), h, w, coded, threads, to,
                         index.data());
  } catch (const std::bad_alloc&) {
    memory = false;
  }
  Py_END_ALLOW_THREADS
  if (!memory) return PyErr_NoMemory();
  Py_RETURN_NONE;
}

PyObject* fit_decode(PyObject*, PyObject* args) {
  PyObject* capsule;
  int backend;
  unsigned coded;
  Py_ssize_t height, width, skip;
  Models models;
  Reference reference;
  View state, words, grids;
  if (!PyArg_ParseTuple(args, "(iiiy*)Ow*y*ny*(nn)Iw*i", &models.taps, &models.temporal,
                        &models.hidden, &models.arrays.view, &capsule, &state.view, &words.view,
                        &skip, &reference.view.view, &height, &width, &coded, &grids.view,
                        &backend))
    return nullptr;
  auto* tables = static_cast<Prepared*>(PyCapsule_GetPointer(capsule, latentpack::kPreparedCapsule));
  if (!tables) return nullptr;
  if (!models.legal() || !legal_size(height, width, grids) || !reference.legal(models, grids) ||
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
    const auto h = static_cast<size_t>(height), w = static_cast<size_t>(width);
    const Isa isa = chosen(backend);
    const uint8_t* from = words.data() + skip;
    auto* to = grids.as<int16_t>();
    wrong = models.taps
                ? fit::decode(models.causal(), *tables, isa, decoding, from, bytes, h, w, coded, to)
                : fit::frame_decode(models.passes(), *tables, isa, decoding, from, bytes,
                                    reference.grids(), h, w, coded, to);
  } catch (const std::bad_alloc&) {
  }
  Py_END_ALLOW_THREADS
  if (wrong == static_cast<int>(latentpack::Status::kNoMemory)) return PyErr_NoMemory();
  std::memcpy(state.view.buf, &decoding, sizeof decoding);
  return PyLong_FromLong(wrong);
}

PyObject* fit_synthesise(PyObject*, PyObject* args) {
  int width_of_net, colours, extra, half, bits, threads, backend;
  unsigned coded;
  Py_ssize_t height, width;
  View arrays, grids, prediction, samples;
  if (!PyArg_ParseTuple(args, "(iiiy*)y*I(nnpi)y*w*ii", &width_of_net, &colours, &extra,
                        &arrays.view, &grids.view, &coded, &height, &width, &half, &bits,
                        &prediction.view, &samples.view, &threads, &backend))
    return nullptr;
  const bool legal =
      width_of_net >= 1 && width_of_net <= 1024 && (colours == 1 || colours == fit::kMaxColours) &&
      (extra == 0 || extra == colours) && bits >= 8 && bits <= fit::kPredictionBits &&
      (!half || colours == fit::kMaxColours) && height > 0 && width > 0 && height <= kMaxSide &&
      width <= kMaxSide && arrays.count<float>() == fit::Net::numbers(width_of_net, colours, extra);
  if (!legal) return failed("arrays and counts do not fit");
  const fit::Picture picture{static_cast<size_t>(height), static_cast<size_t>(width), half != 0,
                             bits, extra ? prediction.as<int16_t>() : nullptr, samples.data()};
  const size_t count = picture.start(colours);
  if (!legal_size(static_cast<Py_ssize_t>(picture.whole_height()),
                  static_cast<Py_ssize_t>(picture.whole_width()), grids) ||
      prediction.count<int16_t>() != (extra ? count : 0) ||
      samples.size() != count * (bits > 8 ? 2 : 1))
    return failed("arrays and counts do not fit");
  bool memory = true;
  Py_BEGIN_ALLOW_THREADS
  try {
    const fit::Net net(width_of_net, colours, extra, arrays.as<float>());
    fit::synthesise(net, chosen(backend), grids.as<int16_t>(), coded, picture, threads);
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
     "((taps, temporal, hidden, arrays), grids, reference, (height, width), coded, symbols, "
     "index, threads, isa)."},
    {"fit_decode", fit_decode, METH_VARARGS,
     "((taps, temporal, hidden, arrays), tables, state, data, skip, reference, (height, width), "
     "coded, grids, isa): a status."},
    {"fit_synthesise", fit_synthesise, METH_VARARGS,
     "((width, colours, extra, arrays), grids, coded, (height, width, half, bits), prediction, "
     "samples, threads, isa)."},
    {nullptr, nullptr, 0, nullptr},
};
