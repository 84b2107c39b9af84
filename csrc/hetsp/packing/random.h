// A small random generator with the same numbers on every machine: splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
#pragma once

#include <cmath>
#include <cstdint>

namespace hetsp::packing {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  // In [0, 1).
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  // In 0..count-1; the bias of count / 2^32 does not matter to a search. count < 2^32.
  std::int32_t below(std::int64_t count) {
    return static_cast<std::int32_t>(((next() >> 32) * static_cast<std::uint64_t>(count)) >> 32);
  }
  bool chance(double probability) { return uniform() < probability; }
  // Between low and high, uniform in the logarithm; low > 0.
  double between(double low, double high) { return low * std::pow(high / low, uniform()); }

 private:
  std::uint64_t state_;
};

}  // namespace hetsp::packing
