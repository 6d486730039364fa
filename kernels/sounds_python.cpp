// sounds for Python: arrays in and out, the lock released while coding.
// sounds.py has checked the arguments; what is checked again is what memory safety needs.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <new>
#include <vector>

#include "python_arguments.h"
#include "sounds.h"

namespace {

using latentpack::chosen;
using latentpack::failed;
using latentpack::View;
namespace sounds = latentpack::sounds;

constexpr Py_ssize_t kMaxChannels = 255;

// The channels of `samples`, int32 [channels, length], each with (low, high, partner). False with
// an error set.
bool take(const View& samples, PyObject* list, int effort, std::vector<sounds::Channel>& channels,
          sounds::Sound& sound) {
  const Py_ssize_t count = PyList_Size(list);
  if (count < 1 || count > kMaxChannels || effort < 0 || effort >= sounds::kEfforts)
    return failed("expected 1 to 255 channels and an effort that there is");
  if (samples.count<int32_t>() % static_cast<size_t>(count))
    return failed("the samples do not fill the channels");
  const size_t length = samples.count<int32_t>() / static_cast<size_t>(count);
  for (Py_ssize_t i = 0; i < count; ++i) {
    sounds::Channel channel{samples.as<int32_t>() + static_cast<size_t>(i) * length, 0, 0, 0};
    if (!PyArg_ParseTuple(PyList_GetItem(list, i), "iii", &channel.low, &channel.high,
                          &channel.partner))
      return false;
    if (channel.low > channel.high || channel.partner < 0 || channel.partner >= count)
      return failed("a channel's range or partner is not legal");
    channels.push_back(channel);
  }
  sound = {length, channels.data(), static_cast<int>(count), effort};
  return true;
}

PyObject* sounds_encode(PyObject*, PyObject* args) {
  View samples;
  PyObject* list;
  int effort, isa;
  if (!PyArg_ParseTuple(args, "w*O!ii", &samples.view, &PyList_Type, &list, &effort, &isa))
    return nullptr;
  std::vector<sounds::Channel> channels;
  sounds::Sound sound;
  if (!take(samples, list, effort, channels, sound)) return nullptr;
  for (const sounds::Channel& channel : channels)
    for (size_t i = 0; i < sound.length; ++i)
      if (channel.samples[i] < channel.low || channel.samples[i] > channel.high)
        return failed("a sample is not in the range of its channel");
  std::vector<uint8_t> out;
  bool memory = true;
  Py_BEGIN_ALLOW_THREADS
  try {
    out = sounds::encode(chosen(isa), sound);
  } catch (const std::bad_alloc&) {
    memory = false;
  }
  Py_END_ALLOW_THREADS
  if (!memory) return PyErr_NoMemory();
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(out.data()),
                                   static_cast<Py_ssize_t>(out.size()));
}

PyObject* sounds_decode(PyObject*, PyObject* args) {
  View data, samples;
  PyObject* list;
  int effort, isa;
  if (!PyArg_ParseTuple(args, "y*w*O!ii", &data.view, &samples.view, &PyList_Type, &list, &effort,
                        &isa))
    return nullptr;
  std::vector<sounds::Channel> channels;
  sounds::Sound sound;
  if (!take(samples, list, effort, channels, sound)) return nullptr;
  bool memory = true;
  Py_BEGIN_ALLOW_THREADS
  try {
    sounds::decode(chosen(isa), sound, data.data(), data.size());
  } catch (const std::bad_alloc&) {
    memory = false;
  }
  Py_END_ALLOW_THREADS
  if (!memory) return PyErr_NoMemory();
  Py_RETURN_NONE;
}

}  // namespace

PyMethodDef sounds_methods[] = {
    {"sounds_encode", sounds_encode, METH_VARARGS,
     "(samples, [(low, high, partner)], effort, isa): bytes."},
    {"sounds_decode", sounds_decode, METH_VARARGS,
     "(data, samples, [(low, high, partner)], effort, isa): fills the samples."},
    {nullptr, nullptr, 0, nullptr},
};
