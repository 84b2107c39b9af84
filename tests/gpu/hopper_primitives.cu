// The cases of tests/cpp/attention/hopper_primitives.cuh on a GPU. `program` lists them, `program NAME` runs one and prints
// "ok NAME" or "FAILED NAME why"; one process a case, since a fault ends the process's device context and
// a hang is ended from outside (timeout).
//
//   cmake --build build --target gpu_programs

#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "launch.cuh"
// The cases need the backend.
#include "attention/hopper_primitives.cuh"

int main(int argc, char** argv) {
  int failed = 0, ran = 0;
  for (const auto& one : hopper_primitives::all_cases()) {
    if (argc < 2) {
      std::printf("%s\n", one.name.c_str());
      continue;
    }
    if (one.name != argv[1]) continue;
    ++ran;
    std::string wrong;
    try {
      wrong = one.run();
    } catch (const std::exception& error) {
      wrong = error.what();
    }
    std::printf("%s %s %s\n", wrong.empty() ? "ok" : "FAILED", one.name.c_str(), wrong.c_str());
    failed += !wrong.empty();
  }
  if (argc >= 2 && ran == 0) std::printf("FAILED %s no such case\n", argv[1]);
  return argc >= 2 && (ran == 0 || failed != 0);
}
