#include "hetsp/base/isa.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;

namespace {

bool here(Isa isa) { return std::ranges::find(supported_isas(), isa) != supported_isas().end(); }

}  // namespace

TEST(portable_is_always_there_and_first) {
  CHECK(!supported_isas().empty());
  CHECK(supported_isas().front() == Isa::portable);
  CHECK(here(best_isa()));
  for (const Isa isa : supported_isas()) CHECK(isa <= best_isa() || !missing(isa).empty());
  CHECK(std::ranges::is_sorted(supported_isas()));
  for (const Isa isa : kAllIsas)
    if (!here(isa)) std::printf("note: this machine lacks %s, so no test runs it\n", name(isa));
}

TEST(names_are_distinct_and_lead_back) {
  for (const Isa a : kAllIsas)
    for (const Isa b : kAllIsas) CHECK_EQ(a == b, std::string(name(a)) == name(b));
  for (const Isa isa : supported_isas()) CHECK(supported_isa(name(isa)) == isa);
}

TEST(an_unknown_name_is_refused_with_what_is_here) {
  CHECK_THROWS(InvalidArgument, "CPU capability is \"sse9\", must be one of portable", (void)supported_isa("sse9"));
  CHECK_THROWS(InvalidArgument, name(best_isa()), (void)supported_isa("AVX2"));  // names are exact
  CHECK_THROWS(InvalidArgument, "is \"\"", (void)supported_isa(""));
}

TEST(a_forced_set_is_active_until_it_is_released) {
  CHECK(active_isa() == best_isa());
  for (const Isa isa : supported_isas()) {
    force_isa(isa);
    CHECK(active_isa() == isa);
  }
  force_isa(std::nullopt);
  CHECK(active_isa() == best_isa());
}

TEST(a_set_that_is_not_here_is_refused_and_changes_nothing) {
  force_isa(Isa::portable);
  for (const Isa isa : kAllIsas)
    if (!here(isa)) CHECK_THROWS(InvalidArgument, missing(isa).c_str(), force_isa(isa));
  for (const Isa isa : kAllIsas) CHECK(here(isa) || !missing(isa).empty());
  CHECK_EQ(missing(best_isa()), std::string());
  CHECK_THROWS(InvalidArgument, "unknown", force_isa(static_cast<Isa>(17)));
  CHECK(active_isa() == Isa::portable);
  force_isa(std::nullopt);
}

TEST_MAIN()
