// hetsp_ext._core: the objects of the core as Python classes. One register_<room>(m) per room, each in its own file.
#include "bindings/register.h"

NB_MODULE(_core, m) {
  nanobind::set_leak_warnings(false);  // a plan kept in a user's global is no leak of ours
  hetsp::bindings::register_errors(m);
  hetsp::bindings::register_checkpoint(m);
  hetsp::bindings::register_checkpoint_store(m);
  hetsp::bindings::register_cost_model(m);
  hetsp::bindings::register_isa(m);
  hetsp::bindings::register_lp(m);
  hetsp::bindings::register_planner(m);
  hetsp::bindings::register_remap(m);
  hetsp::bindings::register_sequence_parallel(m);
  hetsp::bindings::register_simulator(m);
}
