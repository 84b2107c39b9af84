// hetsp_ext._core: the instruction set in use; hetsp_ext.capability is its face.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <vector>

#include "bindings/register.h"
#include "hetsp/base/isa.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace hetsp::bindings {

void register_isa(nb::module_& m) {
  m.def("cpu_capabilities", [] {
    std::vector<std::string> names;
    for (const Isa isa : supported_isas())
      if (missing(isa).empty()) names.emplace_back(name(isa));
    return names;
  });
  m.def(
      "missing_cpu_capability",
      [](const std::string& wanted) {
        for (const Isa isa : kAllIsas)
          if (wanted == name(isa)) return missing(isa);
        return std::string("no such CPU capability");
      },
      "name"_a);
  m.def("cpu_capability", [] { return std::string(name(active_isa())); });
  m.def(
      "force_cpu_capability",
      [](const std::optional<std::string>& wanted) {
        force_isa(wanted ? std::optional(supported_isa(*wanted)) : std::nullopt);
      },
      "name"_a.none());
}

}  // namespace hetsp::bindings
