// fit_train for Python: arrays in and out, the lock released while computing. fit_train.py has
// checked dtypes and shapes; what is checked again is what memory safety needs.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <new>

#include "fit_train.h"
#include "python_arguments.h"

namespace {

using latentpack::chosen;
using latentpack::failed;
using latentpack::View;
namespace fit_train = latentpack::fit_train;

constexpr const char* kWorkCapsule = "latentpack.fit_train.Work";

void release_work(PyObject* capsule) {
  fit_train::WorkDeleter()(
      static_cast<fit_train::Work*>(PyCapsule_GetPointer(capsule, kWorkCapsule)));
}

PyObject* fit_train_prepare(PyObject*, PyObject* args) {
  fit_train::Net net;
  Py_ssize_t height, width;
  int threads, half;
  if (!PyArg_ParseTuple(args, "iiiiiiipnni", &net.taps, &net.hidden, &net.width, &net.colours,
                        &net.temporal, &net.extra, &net.first, &half, &height, &width, &threads))
    return nullptr;
  net.half = half != 0;
  if (net.taps < 0 || net.taps > fit_train::kMaxTaps || net.hidden < 1 ||
      net.hidden > fit_train::kMaxHidden || net.width < 1 || net.width > fit_train::kMaxWidth ||
      (net.colours != 1 && net.colours != 3) ||
      (net.temporal != 0 && net.temporal != fit_train::kTemporal) ||
      (net.extra != 0 && net.extra != net.colours) || net.first < 0 ||
      net.first >= fit_train::kGrids || (net.half && net.colours != 3))
    return failed("sizes of the networks are out of range");
  if (net.half && (height % 2 || width % 2)) return failed("sizes are odd with half colours");
  if (height < 1 || width < 1 || height > (1 << 16) || width > (1 << 16) || threads < 1 ||
      threads > 64)
    return failed("sizes of the picture or threads are out of range");
  try {
    auto work = fit_train::make_work(net, static_cast<size_t>(height), static_cast<size_t>(width),
                                     threads);
    PyObject* capsule = PyCapsule_New(work.get(), kWorkCapsule, release_work);
    if (capsule) work.release();
    return capsule;
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

PyObject* fit_train_step(PyObject*, PyObject* args) {
  PyObject* capsule;
  fit_train::Objective objective;
  View picture, prediction, reference, latents, params, latent_grads, param_grads;
  int isa;
  if (!PyArg_ParseTuple(args, "O(ffffff)(y*y*y*)y*y*w*w*i", &capsule, &objective.weight,
                        &objective.b_min, &objective.step, &objective.rows, &objective.unit,
                        &objective.prediction_unit, &picture.view, &prediction.view,
                        &reference.view, &latents.view, &params.view, &latent_grads.view,
                        &param_grads.view, &isa))
    return nullptr;
  auto* work = static_cast<fit_train::Work*>(PyCapsule_GetPointer(capsule, kWorkCapsule));
  if (!work) return nullptr;
  const fit_train::Net& net = fit_train::net_of(*work);
  const size_t n = fit_train::latent_count(*work), m = fit_train::offsets(net).count;
  const bool referring = reference.size() != 0;
  if (picture.count<float>() != fit_train::samples(*work) ||
      prediction.count<int16_t>() != (net.extra ? fit_train::samples(*work) : 0) ||
      (referring && (!net.temporal || reference.count<float>() != n)) ||
      latents.count<float>() != n || latent_grads.count<float>() != n ||
      params.count<float>() != m || param_grads.count<float>() != m)
    return failed("an array does not have the size that was prepared for");
  fit_train::Result result{};
  bool ran = true;
  Py_BEGIN_ALLOW_THREADS
  try {
    const fit_train::Frame frame{picture.as<float>(),
                                 net.extra ? prediction.as<int16_t>() : nullptr,
                                 referring ? reference.as<float>() : nullptr};
    result = fit_train::step(*work, chosen(isa), objective, frame, latents.as<float>(),
                             params.as<float>(), latent_grads.as<float>(),
                             param_grads.as<float>());
  } catch (const std::bad_alloc&) {
    ran = false;
  }
  Py_END_ALLOW_THREADS
  if (!ran) return PyErr_NoMemory();
  return Py_BuildValue("dd", result.bits, result.mse);
}

PyObject* fit_train_soften(PyObject*, PyObject* args) {
  View latents, values, slope;
  float temperature, noise;
  unsigned int seed;
  int isa;
  if (!PyArg_ParseTuple(args, "y*ffIw*w*i", &latents.view, &temperature, &noise, &seed,
                        &values.view, &slope.view, &isa))
    return nullptr;
  const size_t n = latents.count<float>();
  if (values.count<float>() != n || slope.count<float>() != n)
    return failed("arrays of different sizes");
  Py_BEGIN_ALLOW_THREADS
  fit_train::soften(chosen(isa), latents.as<float>(), n, temperature, noise, seed,
                    values.as<float>(), slope.as<float>());
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}

PyObject* fit_train_adam(PyObject*, PyObject* args) {
  View grads, slope, latents, first, second;
  fit_train::Adam a;
  int isa;
  if (!PyArg_ParseTuple(args, "(ffffff)y*y*w*w*w*i", &a.rate, &a.beta1, &a.beta2, &a.epsilon,
                        &a.correct1, &a.correct2, &grads.view, &slope.view, &latents.view,
                        &first.view, &second.view, &isa))
    return nullptr;
  const size_t n = latents.count<float>();
  for (const View* view : {&grads, &slope, &first, &second})
    if (view->count<float>() != n) return failed("arrays of different sizes");
  Py_BEGIN_ALLOW_THREADS
  fit_train::adam(chosen(isa), a, n, grads.as<float>(), slope.as<float>(), latents.as<float>(),
                  first.as<float>(), second.as<float>());
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}

}  // namespace

PyMethodDef fit_train_methods[] = {
    {"fit_train_prepare", fit_train_prepare, METH_VARARGS,
     "(taps, hidden, width, colours, temporal, extra, first, half, picture's height, width, "
     "threads): memory for `step`."},
    {"fit_train_step", fit_train_step, METH_VARARGS,
     "(memory, (weight, b_min, step, rows, unit, prediction_unit), (picture, prediction, "
     "reference), latents, params, latent_grads, param_grads, isa): bits and mean squared error."},
    {"fit_train_soften", fit_train_soften, METH_VARARGS,
     "(latents, temperature, noise, seed, values, slope, isa)"},
    {"fit_train_adam", fit_train_adam, METH_VARARGS,
     "((rate, beta1, beta2, epsilon, correct1, correct2), grads, slope, latents, first, second, "
     "isa)"},
    {nullptr, nullptr, 0, nullptr},
};
