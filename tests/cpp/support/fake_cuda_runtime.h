// A CUDA run time that has one device in words and none in fact, to link in place of CUDA's: the host half of a CUDA call runs,
// as compiled for the package, on a machine without a GPU. Kernels do nothing; a launch is refused as the real one would be
// (unknown kernel, empty grid, a block too large, more shared memory than was asked for or than there is) and noted. Memory is
// the host's, so that a memset beyond an allocation is the host's fault, too.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace fake_cuda {

struct Device {
  int capability = 90, multiprocessors = 132, shared_bytes = 232448;  // the last: most a block may ask for
  int ordinal = 0;  // the current one
  bool present = true, encodes_maps = true;  // is there a driver; has it cuTensorMapEncodeTiled
  bool captures = false;  // is every stream being captured into a graph
};

struct Call {
  std::string kernel;  // demangled; "memset" for one
  std::size_t blocks, threads, shared_bytes;  // of a memset: bytes, 0, 0
  void* stream;
  bool early;  // may begin before the work before it has ended
};

void reset(const Device& device = {});  // forgets all calls, failures and shared memory asked for
void fail_launch(int number, int status);  // the launch after `number` more returns this cudaError_t
[[nodiscard]] const std::vector<Call>& calls();
[[nodiscard]] int registered();  // kernels that the program holds
[[nodiscard]] int maps();  // tensor maps encoded since the reset

}  // namespace fake_cuda
