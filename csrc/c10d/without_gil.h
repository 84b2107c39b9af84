// Python's lock, given up while waiting.
#pragma once

#include <pybind11/pybind11.h>
#include <torch/csrc/python_headers.h>

#include <exception>

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
  std::exception_ptr raised;
  try {
    throw pybind11::error_already_set();  // takes it from the interpreter while the lock is held
  } catch (const pybind11::error_already_set&) {
    raised = std::current_exception();
  }
  PyGILState_Release(lock);
  std::rethrow_exception(raised);
}

}  // namespace hetsp::routed
