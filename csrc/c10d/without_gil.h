// Python's lock, given up while waiting.
#pragma once

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

}  // namespace hetsp::routed
