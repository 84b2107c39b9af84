#include "hetsp/checkpoint/available_memory.h"

#include <algorithm>
#include <fstream>

#include "hetsp/checkpoint/file.h"

namespace hetsp::checkpoint {

namespace {

// The number after `key` in a file of "key number" lines; -1 where there is none.
std::int64_t number_after(const std::string& path, const std::string& key) {
  std::ifstream in(path);
  for (std::string word; in >> word;) {
    if (word != key) continue;
    std::int64_t number = -1;
    return in >> number ? number : -1;
  }
  return -1;
}

// The number in a file that holds nothing else; -1 where it holds none ("max").
std::int64_t number_in(const std::string& path) {
  std::ifstream in(path);
  std::int64_t number = -1;
  return in >> number ? number : -1;
}

}  // namespace

std::int64_t available_memory(const std::string& root) {
  const std::int64_t kilobytes = number_after(root + "/proc/meminfo", "MemAvailable:");
  std::int64_t bytes = std::max<std::int64_t>(0, kilobytes) * 1024;

  std::string group;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);)
    if (line.starts_with("0::/")) group = line.substr(3);  // the line of version 2
  for (; !group.empty(); group = group == "/" ? "" : parent_of(group)) {
    const std::string folder = root + "/sys/fs/cgroup" + (group == "/" ? "" : group);
    const std::int64_t most = number_in(folder + "/memory.max"), used = number_in(folder + "/memory.current");
    if (most < 0 || used < 0) continue;
    std::int64_t cache = 0;
    for (const char* key : {"inactive_file", "active_file"})
      cache += std::max<std::int64_t>(0, number_after(folder + "/memory.stat", key));
    bytes = std::min(bytes, std::max<std::int64_t>(0, most - used + cache));
  }
  return bytes;
}

}  // namespace hetsp::checkpoint
