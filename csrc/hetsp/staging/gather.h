// What one launch of the gather kernel takes: pieces of device memory that go, each to its offset, into one block.
//
// The list travels as the kernel's argument, by value: no memory of it has to outlive the launch, and none has to be uploaded.
// cudaMemcpyBatchAsync (CUDA 12.8) would do without a kernel, but makes each piece a transfer of its own over the bus; a kernel
// moves a thousand of them within the device's memory, for one transfer of all.
#pragma once

#include <cstdint>
#include <vector>

namespace hetsp::staging {

// A stretch of device memory.
struct DevicePiece {
  const char* from = nullptr;
  std::int64_t bytes = 0;
};

struct GatherPiece {
  const char* from;  // device memory
  std::uint32_t to, bytes;  // to: offset from GatherParams::to
};

struct GatherParams {
  static constexpr int kMost = 1000;  // pieces of a launch: CUDA 12.1 and later take 32,764 bytes of arguments

  char* to = nullptr;  // device memory
  int count = 0;
  GatherPiece pieces[kMost];
};
static_assert(sizeof(GatherParams) <= 32764);

// A block of threads copies a piece, so that longer ones are cut: none would else wait for the longest.
constexpr std::int64_t kLongestGatherPiece = std::int64_t{64} << 10;

// The launches that put `pieces` back to back at `to`, in order; none for no bytes.
[[nodiscard]] std::vector<GatherParams> gathers_of(const std::vector<DevicePiece>& pieces, char* to);

}  // namespace hetsp::staging
