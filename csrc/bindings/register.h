#pragma once

#include <nanobind/nanobind.h>

namespace hetsp::bindings {

void register_errors(nanobind::module_& m);
void register_checkpoint(nanobind::module_& m);
void register_checkpoint_store(nanobind::module_& m);
void register_cost_model(nanobind::module_& m);
void register_isa(nanobind::module_& m);
void register_lp(nanobind::module_& m);
void register_planner(nanobind::module_& m);
void register_remap(nanobind::module_& m);
void register_sequence_parallel(nanobind::module_& m);
void register_simulator(nanobind::module_& m);

}  // namespace hetsp::bindings
