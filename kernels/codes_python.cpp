// The code prior for Python: arrays in and out, the lock released while coding.
// codes.py has checked the arguments; what is checked again is what memory safety needs.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "codes.h"
#include "python_arguments.h"

namespace {

using latentpack::chosen;
using latentpack::failed;
using latentpack::View;
namespace codes = latentpack::codes;

constexpr const char* kCapsule = "latentpack.codes.model";

void destroy(PyObject* capsule) {
  delete static_cast<codes::Model*>(PyCapsule_GetPointer(capsule, kCapsule));
}

template <typename Call>
bool unlocked(Call call) {
  bool memory = true;
  Py_BEGIN_ALLOW_THREADS
  try {
    call();
  } catch (const std::bad_alloc&) {
    memory = false;
  }
  Py_END_ALLOW_THREADS
  if (!memory) PyErr_NoMemory();
  return memory;
}

// A layer's arrays as they came.
struct Taken {
  View weight, bias, multiplier, shift;

  bool parse(PyObject* tuple) {
    return PyArg_ParseTuple(tuple, "y*y*y*y*", &weight.view, &bias.view, &multiplier.view,
                            &shift.view);
  }
  // As `layers` layers of this size. False with an error set.
  bool check(int layers, int in, int out) const {
    const size_t units = static_cast<size_t>(layers) * static_cast<size_t>(out);
    if (weight.size() != units * static_cast<size_t>(in) || bias.size() != 4 * units ||
        multiplier.size() != 4 * units || shift.size() != 4 * units)
      return failed("a layer has not the size of the network");
    for (size_t i = 0; i < units; ++i)
      if (shift.as<int32_t>()[i] < 1 || shift.as<int32_t>()[i] > 40 ||
          multiplier.as<int32_t>()[i] < 0 || multiplier.as<int32_t>()[i] > 1 << 15)
        return failed("a multiplier or a shift is out of range");
    return true;
  }
  codes::Dense dense(int layers, int in, int out) const {
    return codes::make_dense({layers, in, out, weight.as<int8_t>(), bias.as<int32_t>(),
                              multiplier.as<int32_t>(), shift.as<int32_t>()});
  }
};

bool width(int units) {
  return units >= codes::kUnits && units <= codes::kMaxWidth && units % codes::kUnits == 0;
}

// Reads (bits of a code of each codebook). False with an error set.
bool take_bits(PyObject* list, codes::Model& model, size_t& padded) {
  const Py_ssize_t books = PyList_Size(list);
  if (books < 1 || books > codes::kMaxBooks) return failed("too few or too many codebooks");
  model.books = static_cast<int>(books);
  model.starts = model.padded_starts = {0};
  for (Py_ssize_t q = 0; q < books; ++q) {
    const long bits = PyLong_AsLong(PyList_GetItem(list, q));
    if (PyErr_Occurred()) return false;
    if (bits < 1 || bits > codes::kMaxBits) return failed("a codebook's size is out of range");
    const size_t size = size_t{1} << bits;
    model.bits.push_back(static_cast<int>(bits));
    model.starts.push_back(model.starts.back() + size);
    model.padded_starts.push_back(model.padded_starts.back() +
                                  std::max(size, size_t{codes::kUnits}));
  }
  padded = model.padded_starts.back();
  return true;
}

PyObject* codes_prepare(PyObject*, PyObject* args) {
  PyObject *list, *layers[4];
  int dim, context, hidden, features, past;
  View embedding, weight, bias;
  if (!PyArg_ParseTuple(args, "O!(iiiii)y*O!O!O!O!y*y*", &PyList_Type, &list, &dim, &context,
                        &hidden, &features, &past, &embedding.view, &PyTuple_Type, &layers[0],
                        &PyTuple_Type, &layers[1], &PyTuple_Type, &layers[2], &PyTuple_Type,
                        &layers[3], &weight.view, &bias.view))
    return nullptr;
  if (!width(dim) || !width(context) || !width(hidden) || !width(features) || past < 0 ||
      past > codes::kMaxPast)
    return failed("a width of the network is out of range");
  auto model = std::make_unique<codes::Model>();
  size_t padded;
  if (!take_bits(list, *model, padded)) return nullptr;
  const size_t count = model->starts.back();
  if (embedding.size() != count * static_cast<size_t>(dim) ||
      weight.size() != count * static_cast<size_t>(features) || bias.size() != 4 * count)
    return failed("embeddings or weights have not the size of the codebooks");
  Taken taken[4];
  const int shapes[4][3] = {{1, dim, context},
                            {past, 2 * context, context},
                            {model->books, context + dim, hidden},
                            {model->books, context + dim + hidden, features}};
  for (int i = 0; i < 4; ++i)
    if (!taken[i].parse(layers[i]) || !taken[i].check(shapes[i][0], shapes[i][1], shapes[i][2]))
      return nullptr;
  if (!unlocked([&] {
        model->dim = dim, model->context = context, model->past_layers = past;
        model->hidden_units = hidden, model->feature_units = features;
        codes::Dense* to[4] = {&model->first, &model->past, &model->hidden, &model->features};
        for (int i = 0; i < 4; ++i)
          *to[i] = taken[i].dense(shapes[i][0], shapes[i][1], shapes[i][2]);
        model->embedding.assign(embedding.as<int8_t>(),
                                embedding.as<int8_t>() + embedding.size());
        codes::take_head(*model, weight.as<int8_t>(), bias.as<int32_t>());
      }))
    return nullptr;
  PyObject* capsule = PyCapsule_New(model.get(), kCapsule, destroy);
  if (capsule) model.release();
  return capsule;
}

// The model and how many of its codebooks and how many frames the codes [k, count] have. False with
// an error set.
bool fits(PyObject* capsule, const View& codes, int k, const codes::Model*& model, size_t& count) {
  model = static_cast<const codes::Model*>(PyCapsule_GetPointer(capsule, kCapsule));
  if (!model) return false;
  if (k < 1 || k > model->books || codes.size() % (8 * static_cast<size_t>(k)))
    return failed("the codes are not those of the network");
  count = codes.size() / 8 / static_cast<size_t>(k);
  return true;
}

PyObject* codes_encode(PyObject*, PyObject* args) {
  PyObject* capsule;
  View given;
  int k, isa;
  const codes::Model* model;
  size_t count;
  if (!PyArg_ParseTuple(args, "Oy*ii", &capsule, &given.view, &k, &isa) ||
      !fits(capsule, given, k, model, count))
    return nullptr;
  for (int q = 0; q < k; ++q)
    for (size_t t = 0; t < count; ++t)
      if (static_cast<uint64_t>(given.as<int64_t>()[q * count + t]) >> model->bits[q])
        return failed("a code is not in its codebook");
  std::vector<uint8_t> out;
  if (!unlocked([&] {
        out = codes::encode(chosen(isa), *model, given.as<int64_t>(), k, count);
      }))
    return nullptr;
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(out.data()),
                                   static_cast<Py_ssize_t>(out.size()));
}

PyObject* codes_decode(PyObject*, PyObject* args) {
  PyObject* capsule;
  View data, out;
  int k, isa;
  const codes::Model* model;
  size_t count;
  if (!PyArg_ParseTuple(args, "Oy*w*ii", &capsule, &data.view, &out.view, &k, &isa) ||
      !fits(capsule, out, k, model, count))
    return nullptr;
  bool whole = false;
  if (!unlocked([&] {
        whole = codes::decode(chosen(isa), *model, data.data(), data.size(), out.as<int64_t>(), k,
                              count);
      }))
    return nullptr;
  return PyBool_FromLong(whole);
}

}  // namespace

PyMethodDef codes_methods[] = {
    {"codes_prepare", codes_prepare, METH_VARARGS,
     "([bits], (dim, context, hidden, features, past layers), embedding, first, past, hidden, "
     "features, weight, bias): the network; a layer is (weight, bias, multiplier, shift)."},
    {"codes_encode", codes_encode, METH_VARARGS, "(network, codes, k, isa): bytes."},
    {"codes_decode", codes_decode, METH_VARARGS,
     "(network, data, codes, k, isa): fills the codes; whether the data ends as it should."},
    {nullptr, nullptr, 0, nullptr},
};
