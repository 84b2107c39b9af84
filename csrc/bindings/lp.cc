// hetsp_ext._core.Simplex: linear programmes over NumPy arrays; hetsp_ext.lp is its face.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include "bindings/register.h"
#include "hetsp/base/error.h"
#include "hetsp/lp/simplex.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace hetsp::bindings {

namespace {

using namespace lp;

template <class T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class T>
std::vector<T> vector_of(const Array<T>& array) {
  return {array.data(), array.data() + array.size()};
}

nb::object numpy(std::span<const double> values) {
  auto* copy = new std::vector<double>(values.begin(), values.end());
  const nb::capsule owner(copy, [](void* p) noexcept { delete static_cast<std::vector<double>*>(p); });
  return nb::cast(nb::ndarray<nb::numpy, double, nb::ndim<1>>(copy->data(), {copy->size()}, owner));
}

std::vector<Entry> entries_of(const Array<std::int32_t>& index, const Array<double>& value) {
  require(index.size() == value.size(), "lp: ", index.size(), " indices and ", value.size(), " values; must be as many");
  std::vector<Entry> entries;
  entries.reserve(index.size());
  for (std::size_t k = 0; k < index.size(); ++k) entries.push_back({index.data()[k], value.data()[k]});
  return entries;
}

Model model_of(const Array<double>& cost, const Array<double>& lower, const Array<double>& upper,
               const Array<double>& row_lower, const Array<double>& row_upper, const Array<std::int64_t>& start,
               const Array<std::int32_t>& index, const Array<double>& value) {
  return {vector_of(cost),      vector_of(lower), vector_of(upper),        vector_of(row_lower),
          vector_of(row_upper), vector_of(start), entries_of(index, value)};
}

}  // namespace

void register_lp(nb::module_& m) {
  nb::class_<Simplex>(m, "Simplex")
      .def(
          "__init__",
          [](Simplex* self, const Array<double>& cost, const Array<double>& lower, const Array<double>& upper,
             const Array<double>& row_lower, const Array<double>& row_upper, const Array<std::int64_t>& start,
             const Array<std::int32_t>& index, const Array<double>& value, double primal_tolerance, double dual_tolerance,
             std::int64_t work_limit) {
            const Model model = model_of(cost, lower, upper, row_lower, row_upper, start, index, value);
            new (self) Simplex(model, {primal_tolerance, dual_tolerance, work_limit, nullptr});
          },
          "cost"_a, "lower"_a, "upper"_a, "row_lower"_a, "row_upper"_a, "start"_a, "index"_a, "value"_a, "primal_tolerance"_a,
          "dual_tolerance"_a, "work_limit"_a)
      .def("solve",
           [](Simplex& s) {
             const nb::gil_scoped_release release;
             return std::string(name_of(s.solve()));
           })
      .def(
          "add_column",
          [](Simplex& s, double cost, double lower, double upper, const Array<std::int32_t>& index,
             const Array<double>& value) { return s.add_column(cost, lower, upper, entries_of(index, value)); },
          "cost"_a, "lower"_a, "upper"_a, "index"_a, "value"_a)
      .def(
          "add_row",
          [](Simplex& s, double lower, double upper, const Array<std::int32_t>& index, const Array<double>& value) {
            return s.add_row(lower, upper, entries_of(index, value));
          },
          "lower"_a, "upper"_a, "index"_a, "value"_a)
      .def("set_bounds", &Simplex::set_bounds, "column"_a, "lower"_a, "upper"_a)
      .def("set_row_bounds", &Simplex::set_row_bounds, "row"_a, "lower"_a, "upper"_a)
      .def("set_cost", &Simplex::set_cost, "column"_a, "cost"_a)
      .def_prop_ro("columns", &Simplex::columns)
      .def_prop_ro("rows", &Simplex::rows)
      .def_prop_ro("objective", &Simplex::objective)
      .def_prop_ro("iterations", &Simplex::iterations)
      .def_prop_ro("work", &Simplex::work)
      .def_prop_ro("primal", [](const Simplex& s) { return numpy(s.primal()); })
      .def_prop_ro("row_activity", [](const Simplex& s) { return numpy(s.row_activity()); })
      .def_prop_ro("duals", [](const Simplex& s) { return numpy(s.duals()); })
      .def_prop_ro("reduced_costs", [](const Simplex& s) { return numpy(s.reduced_costs()); })
      .def_prop_ro("ray", [](const Simplex& s) { return numpy(s.ray()); });
}

}  // namespace hetsp::bindings
