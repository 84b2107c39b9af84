// Failures as the classes of hetsp_ext.errors.
#pragma once

namespace hetsp::routed {

// For every module that shares torch's pybind11: the exceptions leave through torch's own bindings of Work, Backend and Future.
void register_exceptions();

}  // namespace hetsp::routed
