#include "hetsp/base/amx.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

#include "hetsp/base/error.h"
#include "hetsp/base/isa.h"
#include "support/check.h"

using namespace hetsp;

TEST(what_is_missing_is_named) {
  CHECK_EQ(amx::missing({true, true}), std::string());
  CHECK(amx::missing({false, false}).starts_with("the CPU has no AMX-BF16"));
  CHECK(amx::missing({false, true}).starts_with("the CPU has no AMX-BF16"));
  CHECK(amx::missing({true, false}).find("kernel gives no tile registers") != std::string::npos);
}

// The kernel lists what the CPU has and what it saves.
TEST(what_shows_is_what_the_kernel_lists) {
  std::ifstream file("/proc/cpuinfo");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (text.find("flags") == std::string::npos) return void(std::printf("skipped: no flags in /proc/cpuinfo\n"));
  CHECK_EQ(amx::missing(amx::look()).empty(),
           text.find(" amx_bf16") != std::string::npos && text.find(" amx_tile") != std::string::npos);
}

TEST(the_level_says_which_of_the_two_is_missing) {
  const auto& here = supported_isas();
  if (std::ranges::find(here, Isa::amx) != here.end()) {
    CHECK(missing(Isa::amx) == amx::refusal());
    if (!amx::refusal().empty()) {
      CHECK_THROWS(InvalidArgument, amx::refusal().c_str(), force_isa(Isa::amx));
      return;
    }
    force_isa(Isa::amx);
    CHECK(active_isa() == Isa::amx);
    force_isa(std::nullopt);
    return;
  }
  const std::string why = missing(Isa::amx);
  CHECK(why.find("AMX-BF16") != std::string::npos);
  CHECK_THROWS(InvalidArgument, why.c_str(), force_isa(Isa::amx));
  CHECK_THROWS(InvalidArgument, why.c_str(), (void)supported_isa("amx"));
  CHECK(amx::refusal().find("ARCH_REQ_XCOMP_PERM") != std::string::npos);
  CHECK_THROWS(InvalidArgument, "refuses this process the tile registers", permit(Isa::amx));
}

TEST(it_is_the_best_where_it_may_be_used) { CHECK_EQ(best_isa() == Isa::amx, missing(Isa::amx).empty()); }

TEST_MAIN()
