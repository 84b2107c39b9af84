#include "hetsp/lp/model.h"

#include <cmath>

#include "hetsp/base/error.h"
#include "support/check.h"

namespace {
using namespace hetsp::lp;
using hetsp::InvalidArgument;

Model small() {
  Model m;
  m.add_row(0.0, 1.0);
  m.add_row(-kInfinity, kInfinity);
  const Entry entries[] = {{1, 2.0}, {0, -1.0}};
  m.add_column(1.0, 0.0, kInfinity, entries);
  return m;
}
}  // namespace

TEST(lines_are_numbered_as_they_come) {
  Model m = small();
  CHECK_EQ(m.add_column(0.0, 0.0, 0.0, {}), 1);
  CHECK_EQ(m.add_row(0.0, 0.0), 2);
  CHECK_EQ(m.column(0).size(), 2u);
  CHECK_EQ(m.column(1).size(), 0u);
  hetsp::lp::check(m);
  hetsp::lp::check(Model{});
}

TEST(every_fault_is_named) {
  const auto fault = [](const char* part, const auto& damage) {
    Model m = small();
    damage(m);
    CHECK_THROWS(InvalidArgument, part, hetsp::lp::check(m));
  };
  fault("cost of column 0 is nan", [](Model& m) { m.cost[0] = std::nan(""); });
  fault("cost of column 0 is inf", [](Model& m) { m.cost[0] = kInfinity; });
  fault("row 0 has bounds 2 .. 1", [](Model& m) { m.row_lower[0] = 2.0; });
  fault("row 1 has bounds nan", [](Model& m) { m.row_lower[1] = std::nan(""); });
  fault("row 1 has bounds inf .. inf", [](Model& m) { m.row_lower[1] = kInfinity; });
  fault("column 0 has bounds -inf .. -inf", [](Model& m) { m.lower[0] = m.upper[0] = -kInfinity; });
  fault("column 0 has an entry at 2, must be in 0..1", [](Model& m) { m.entries[0].index = 2; });
  fault("column 0 has an entry at -1", [](Model& m) { m.entries[0].index = -1; });
  fault("column 0 has two entries at 0", [](Model& m) { m.entries[0].index = 0; });
  fault("column 0 has inf at 1", [](Model& m) { m.entries[0].value = kInfinity; });
  fault("1 lower and 2 upper", [](Model& m) { m.upper.push_back(1.0); });
  fault("2 lower and 1 upper bounds of rows", [](Model& m) { m.row_upper.pop_back(); });
  fault("column starts must be 2", [](Model& m) { m.start.push_back(2); });
  fault("rise from 0 to 2", [](Model& m) { m.start.back() = 1; });
}

TEST_MAIN()
