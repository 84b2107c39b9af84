#include "hetsp/staging/stream_copy.h"

#include <random>
#include <string>
#include <vector>

#include "support/check.h"

using namespace hetsp;

TEST(every_byte_and_no_other) {
  for (const Isa isa : supported_isas())
    for (std::uint64_t seed = 0; seed < 150; ++seed) {
      check::context() = std::string(name(isa)) + ", seed " + std::to_string(seed);
      std::mt19937_64 random(seed);
      const std::size_t bases[] = {0, 1, 63, 64, 65, 4032, 4095, 4096, 4097, 4160, 65536, 300000};
      const std::size_t bytes = bases[random() % std::size(bases)] + random() % 70;
      const std::size_t target = 64 + random() % 64, source = random() % 64;
      std::vector<unsigned char> from(source + bytes), to(target + bytes + 128, 0xee);
      for (auto& c : from) c = static_cast<unsigned char>(random());
      std::vector<unsigned char> expected = to;
      std::copy(from.begin() + static_cast<std::ptrdiff_t>(source), from.end(),
                expected.begin() + static_cast<std::ptrdiff_t>(target));
      staging::stream_copy(to.data() + target, from.data() + source, bytes, isa);
      CHECK(to == expected);
    }
}

TEST(nothing_from_nowhere) { staging::stream_copy(nullptr, nullptr, 0); }

TEST_MAIN()
