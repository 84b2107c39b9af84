#include "c10d/python_dialler.h"

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <memory>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "c10d/gloo_lane.h"

namespace py = pybind11;

namespace hetsp::routed {

namespace {

using Context = c10::intrusive_ptr<::c10d::Backend>;

// The callable, for threads without the lock. Where Python is gone already its memory is left to the end of the process.
struct Callable {
  explicit Callable(py::object callable) : object(std::move(callable)) {}
  ~Callable() {
    PyObject* left = object.release().ptr();
    if (Py_IsInitialized() == 0) return;
    const PyGILState_STATE lock = PyGILState_Ensure();
    Py_XDECREF(left);
    PyGILState_Release(lock);
  }
  Callable(const Callable&) = delete;
  Callable& operator=(const Callable&) = delete;
  py::object object;
};

}  // namespace

Dialler python_dialler(py::object connect, int rank) {
  const auto callable = std::make_shared<Callable>(std::move(connect));
  auto dial = [callable, rank](comm::Link link, std::uint16_t generation) {
    Context context;
    int next = 0;
    std::string failure;
    {
      const py::gil_scoped_acquire lock;
      try {
        std::tie(context, next) = callable->object(link.peer, link.rail, generation).cast<std::tuple<Context, int>>();
      } catch (const std::exception& error) {  // while the lock is held: the text comes from a Python object
        failure = error.what();
        if (failure.empty()) failure = "no connection";
      }
    }
    if (!failure.empty()) throw std::runtime_error(failure);
    return Connection{gloo_lane(std::move(context), link.peer > rank ? 1 : 0), static_cast<std::uint16_t>(next)};
  };
  auto cancel = [callable] {
    const py::gil_scoped_acquire lock;
    try {
      callable->object.attr("close")();
    } catch (const py::error_already_set&) {
      // it ends its attempts on its own in the end
    }
  };
  return {std::move(dial), std::move(cancel)};
}

}  // namespace hetsp::routed
