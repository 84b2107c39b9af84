#include "hetsp/staging/gather.h"

#include "support/cuda_on_cpu.h"
// The emulator's names must be known before the kernel.
#include <algorithm>
#include <random>
#include <string>

#include "hetsp/staging/cuda/gather.cuh"
#include "support/check.h"

using namespace hetsp::staging;

namespace {

struct Nothing {};

// Pieces of random memory, with every alignment and sizes biased to corners, and what they give back to back.
struct Sources {
  explicit Sources(std::uint64_t seed, std::size_t most = 12) {
    std::mt19937_64 random(seed);
    memory.resize(std::size_t{1} << 20);
    for (char& c : memory) c = static_cast<char>(random());
    const std::int64_t sizes[] = {
        0, 1, 3, 4, 15, 16, 17, 64, 4096, kLongestGatherPiece - 1, kLongestGatherPiece, kLongestGatherPiece + 1, 200001};
    for (std::size_t n = random() % (most + 1); n > 0; --n) {
      const std::int64_t bytes = sizes[random() % std::size(sizes)];
      std::int64_t at = static_cast<std::int64_t>(random() % (memory.size() - 200002));
      if (random() % 3 == 0) at &= ~std::int64_t{15};
      pieces.push_back({memory.data() + at, bytes});
      expected.append(memory.data() + at, static_cast<std::size_t>(bytes));
    }
  }
  std::string memory, expected;
  std::vector<DevicePiece> pieces;
};

}  // namespace

TEST(the_lists_say_where_each_byte_goes) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Sources sources(seed);
    std::string block(sources.expected.size() + 1, '\x7f');
    for (const GatherParams& params : gathers_of(sources.pieces, block.data())) {
      CHECK(params.count > 0 && params.count <= GatherParams::kMost);
      for (int p = 0; p < params.count; ++p) {
        CHECK(params.pieces[p].bytes > 0 && params.pieces[p].bytes <= kLongestGatherPiece);
        std::copy_n(params.pieces[p].from, params.pieces[p].bytes, params.to + params.pieces[p].to);
      }
    }
    CHECK(block == sources.expected + '\x7f');
  }
}

TEST(no_list_is_longer_than_the_kernel_takes) {
  const std::string memory(3 * GatherParams::kMost, 'a');
  std::vector<DevicePiece> pieces;
  for (int i = 0; i < 2 * GatherParams::kMost + 1; ++i) pieces.push_back({memory.data() + i, 1});
  std::string block(pieces.size(), '\0');
  const auto gathers = gathers_of(pieces, block.data());
  CHECK_EQ(gathers.size(), std::size_t{3});
  CHECK_EQ(gathers[0].count, GatherParams::kMost);
  CHECK_EQ(gathers[2].count, 1);
  CHECK(gathers[2].to + gathers[2].pieces[0].to == block.data() + 2 * GatherParams::kMost);
  CHECK(gathers_of({}, nullptr).empty());
  CHECK(gathers_of({{nullptr, 0}}, nullptr).empty());
}

// On fewer blocks than pieces, too. What lies beside the block stays.
TEST(the_kernel_copies_every_piece_whatever_its_alignment) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Sources sources(seed);
    const std::size_t shift = seed % 17;
    std::string block(sources.expected.size() + 40, '\x7f');
    for (const GatherParams& params : gathers_of(sources.pieces, block.data() + shift))
      cuda_on_cpu::launch<Nothing>(seed % 2 == 0 ? static_cast<unsigned>(params.count) : 2, cuda::gather_threads,
                                   [&](Nothing&) { cuda::gather_pieces(params); });
    CHECK(block.substr(0, shift) == std::string(shift, '\x7f'));
    CHECK(block.substr(shift, sources.expected.size()) == sources.expected);
    CHECK(block.substr(shift + sources.expected.size()) == std::string(40 - shift, '\x7f'));
  }
}

TEST_MAIN()
