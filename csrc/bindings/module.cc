// hetsp_ext._core: the objects of the core as Python classes. One register_<room>(m) per room, each in its own file.
#include "bindings/register.h"

NB_MODULE(_core, m) {
  hetsp::bindings::register_errors(m);
  hetsp::bindings::register_planner(m);
  hetsp::bindings::register_sequence_parallel(m);
}
