#include "hetsp/checkpoint/crc32c.h"

#include <random>
#include <string>

#include "support/check.h"

using namespace hetsp::checkpoint;

namespace {

// The definition, a bit at a time.
std::uint32_t slow(const std::string& text) {
  std::uint32_t crc = ~0U;
  for (const char c : text) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78U : 0U);
  }
  return ~crc;
}

}  // namespace

TEST(values_of_rfc_3720) {
  std::string rising(32, '\0'), falling(32, '\0');
  for (int i = 0; i < 32; ++i) rising[i] = static_cast<char>(i), falling[i] = static_cast<char>(31 - i);
  CHECK_EQ(crc32c(0, std::string(32, '\0').data(), 32), 0x8a9136aaU);
  CHECK_EQ(crc32c(0, std::string(32, '\xff').data(), 32), 0x62a8ab43U);
  CHECK_EQ(crc32c(0, rising.data(), 32), 0x46dd794eU);
  CHECK_EQ(crc32c(0, falling.data(), 32), 0x113fdb5cU);
}

TEST(any_length_any_alignment_any_cut) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    // Around the lengths at which three streams begin and end: 3 x 256 and 3 x 8192 bytes.
    const std::size_t bases[] = {0, 1, 7, 8, 255, 767, 768, 769, 1536, 24575, 24576, 24577, 24576 + 768, 3 * 24576};
    std::string text(bases[random() % std::size(bases)] + random() % 9 + 8, '\0');
    for (char& c : text) c = static_cast<char>(random());
    const std::size_t skip = random() % 8;
    const std::string body = text.substr(skip);
    const std::uint32_t expected = slow(body);
    CHECK_EQ(crc32c(0, text.data() + skip, body.size()), expected);
    CHECK_EQ(crc32c_portable(0, text.data() + skip, body.size()), expected);
    const std::size_t cut = random() % (body.size() + 1);
    CHECK_EQ(crc32c(crc32c(0, body.data(), cut), body.data() + cut, body.size() - cut), expected);
    CHECK_EQ(crc32c_portable(crc32c(0, body.data(), cut), body.data() + cut, body.size() - cut), expected);
  }
}

TEST_MAIN()
