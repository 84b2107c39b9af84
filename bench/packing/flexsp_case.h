// FlexSP's cost model (arXiv 2412.01523 and the constants of its release: 30 GB of an A100, all-to-alls over 8-GPU nodes) as
// modes of a packing instance; bandwidths above 64 ranks are assumed. Cases are read from the lines that instances.py writes.
#pragma once

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "hetsp/packing/instance.h"

namespace flexsp {

struct Model {
  double per_pair, per_token, fixed, volume;  // ms, ms, ms of a micro-batch, MB per token
};
inline const std::map<std::string, Model> kModels = {{"7b", {5.128e-6, 0.1839576, 629.3563, 2.0}},
                                                     {"13b", {9.2852e-6, 0.3060189, 1132.5632, 3.125}},
                                                     {"30b", {15.4262e-6, 0.8035742, 2789.3644, 6.09375}}};
inline const std::map<int, double> kBandwidth = {{1, 1e10},  {2, 119.54}, {4, 104.07}, {8, 96.5},  {16, 10.33}, {32, 5.94},
                                                 {64, 4.87}, {128, 4.5},  {256, 4.3},  {512, 4.2}, {1024, 4.15}};  // GB/s

inline double bandwidth(int ranks) {
  const auto above = kBandwidth.lower_bound(ranks);
  if (above->first == ranks) return above->second;
  const auto below = std::prev(above);
  if (below->first == 8) return 1.3 * above->second;  // 9 to 15 ranks already leave the node
  return below->second + (above->second - below->second) * (ranks - below->first) / (above->first - below->first);
}

enum class Degrees { from_1, from_2, any };

struct Case {
  std::string name, kind, model;
  int ranks = 1;
  std::int64_t tokens_per_rank = 0;
  std::vector<std::int64_t> lengths;

  [[nodiscard]] double fixed_seconds() const { return kModels.at(model).fixed * 1e-3; }
  [[nodiscard]] hetsp::packing::Instance instance(Degrees degrees) const {
    const Model& m = kModels.at(model);
    hetsp::packing::Instance made;
    made.ranks = ranks;
    for (int d = degrees == Degrees::from_2 ? 2 : 1; d <= std::min(ranks, 1024); d = degrees == Degrees::any ? d + 1 : 2 * d)
      made.modes.push_back({d, d * tokens_per_rank, 1e-3 * m.per_pair / d,
                            1e-3 * (m.per_token + (d == 1 ? 0.0 : m.volume / bandwidth(d))) / d, 0.0});
    for (const auto s : lengths) made.items.push_back({s, static_cast<double>(s) * static_cast<double>(s)});
    return made;
  }
};

// Lines: name kind model ranks tokens_per_rank count length...
inline std::vector<Case> read(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::vector<Case> cases;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    Case one;
    std::size_t count = 0;
    if (!(words >> one.name >> one.kind >> one.model >> one.ranks >> one.tokens_per_rank >> count)) continue;
    one.lengths.resize(count);
    for (auto& s : one.lengths)
      if (!(words >> s)) throw std::runtime_error(path + ": " + one.name + " ends early");
    cases.push_back(std::move(one));
  }
  return cases;
}

}  // namespace flexsp
