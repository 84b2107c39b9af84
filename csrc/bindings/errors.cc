// The core's exceptions become the classes of hetsp_ext/errors.py, which a pure Python user can import and catch.
#include "bindings/register.h"
#include "hetsp/base/error.h"

namespace nb = nanobind;

namespace hetsp::bindings {

namespace {

void raise(const char* name, const char* what) {
  const nb::object type = nb::module_::import_("hetsp_ext.errors").attr(name);
  PyErr_SetString(type.ptr(), what);
}

}  // namespace

void register_errors(nb::module_&) {
  nb::register_exception_translator(
      [](const std::exception_ptr& pointer, void*) {
        try {
          std::rethrow_exception(pointer);
        } catch (const InvalidArgument& error) {
          raise("InvalidArgument", error.what());
        } catch (const PlanInfeasible& error) {
          raise("PlanInfeasible", error.what());
        }
      },
      nullptr);
}

}  // namespace hetsp::bindings
