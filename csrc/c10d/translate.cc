#include "c10d/translate.h"

#include <torch/csrc/utils/pybind.h>

#include <exception>

#include "c10d/errors.h"
#include "hetsp/base/error.h"

namespace py = pybind11;

namespace hetsp::routed {

namespace {

void raise(const char* name, const char* what) {
  PyErr_SetString(py::module_::import("hetsp_ext.errors").attr(name).ptr(), what);
}

}  // namespace

void register_exceptions() {
  // NOLINTNEXTLINE(performance-unnecessary-value-param): the signature is pybind11's
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const PeerLost& error) {
      raise("PeerLost", error.what());
    } catch (const InvalidArgument& error) {
      raise("InvalidArgument", error.what());
    }  // others are for the translators before this one
  });
}

}  // namespace hetsp::routed
