#include "hetsp/checkpoint/available_memory.h"

#include <filesystem>
#include <fstream>

#include "checkpoint/scratch_directory.h"
#include "support/check.h"

using namespace hetsp::checkpoint;

namespace {

void put(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path) << text;
}

}  // namespace

TEST(the_least_of_machine_and_control_groups_counts) {
  const ScratchDirectory scratch;
  const std::string& root = scratch.path();
  CHECK_EQ(available_memory(root), 0);
  put(root + "/proc/meminfo", "MemTotal:  9000 kB\nMemFree: 1 kB\nMemAvailable:    5000 kB\nBuffers: 7 kB\n");
  CHECK_EQ(available_memory(root), 5000 * 1024);
  put(root + "/proc/self/cgroup", "1:memory:/ignored\n0::/outer/inner\n");
  CHECK_EQ(available_memory(root), 5000 * 1024);
  put(root + "/sys/fs/cgroup/outer/inner/memory.max", "max\n");
  put(root + "/sys/fs/cgroup/outer/inner/memory.current", "100\n");
  CHECK_EQ(available_memory(root), 5000 * 1024);
  put(root + "/sys/fs/cgroup/outer/memory.max", "1000000\n");
  put(root + "/sys/fs/cgroup/outer/memory.current", "900000\n");
  CHECK_EQ(available_memory(root), 100000);
  put(root + "/sys/fs/cgroup/outer/memory.stat", "anon 5\nactive_file 2000\ninactive_file 3000\nfile 7\n");
  CHECK_EQ(available_memory(root), 105000);
  put(root + "/sys/fs/cgroup/memory.max", "500\n");
  put(root + "/sys/fs/cgroup/memory.current", "600\n");
  CHECK_EQ(available_memory(root), 0);
}

TEST(this_machine_has_some) { CHECK(available_memory() > 0); }

TEST_MAIN()
