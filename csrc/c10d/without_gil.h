// Python's lock, given up while waiting.
#pragma once

#include <pybind11/pybind11.h>
#include <torch/csrc/python_headers.h>

namespace hetsp::routed {

// Gives the lock up where this thread holds it: a thread that we wait for may need it.
class WithoutGil {
 public:
  WithoutGil() : state_(Py_IsInitialized() != 0 && PyGILState_Check() != 0 ? PyEval_SaveThread() : nullptr) {}
  ~WithoutGil() {
    if (state_ != nullptr) PyEval_RestoreThread(state_);
  }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

// For a long wait without the lock: lets Python's signal handlers run, and throws what they raise.
inline void heed_signals() {
  if (Py_IsInitialized() == 0) return;
  const PyGILState_STATE lock = PyGILState_Ensure();
  if (PyErr_CheckSignals() == 0) return PyGILState_Release(lock);
  pybind11::error_already_set raised;  // takes it from the interpreter while the lock is held
  PyGILState_Release(lock);
  throw raised;
}

}  // namespace hetsp::routed
