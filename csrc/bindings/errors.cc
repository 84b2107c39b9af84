// The core's exceptions become the classes of hetsp_ext/errors.py, which a pure Python user can import and catch.
#include <nanobind/stl/string.h>

#include "bindings/register.h"
#include "hetsp/base/error.h"
#include "hetsp/checkpoint/corrupt.h"
#include "hetsp/checkpoint/directory.h"
#include "hetsp/checkpoint/io_error.h"

namespace nb = nanobind;

namespace hetsp::bindings {

namespace {

void raise(const char* name, const char* what) {
  const nb::object type = nb::module_::import_("hetsp_ext.errors").attr(name);
  PyErr_SetString(type.ptr(), what);
}

// An OSError with errno and filename. They are set by hand: its constructor takes them only where OSError is the first base.
void raise(const checkpoint::IoError& error) {
  const nb::object type = nb::module_::import_("hetsp_ext.errors").attr("CheckpointWriteError");
  const nb::object exception = type(error.what());
  exception.attr("errno") = error.code();
  exception.attr("strerror") = error.operation() + ": " + error.reason();
  exception.attr("filename") = error.path();
  PyErr_SetObject(type.ptr(), exception.ptr());
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
        } catch (const checkpoint::Corrupt& error) {
          raise("CheckpointCorrupt", error.what());
        } catch (const checkpoint::Busy& error) {
          raise("CheckpointBusy", error.what());
        } catch (const checkpoint::IoError& error) {
          raise(error);
        }
      },
      nullptr);
}

}  // namespace hetsp::bindings
