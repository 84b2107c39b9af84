// The work list of hetsp/attention/cuda/tile_list.h as its comment defines it, row by row on the host.
//
// C++17: also compiled by nvcc, for tests/gpu/tile_list.cu.
#pragma once

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "hetsp/attention/cuda/tile_list.h"
#include "hetsp/attention/segment.h"
#include "hetsp/attention/work_list.h"

namespace attention_test {

using hetsp::attention::Axis;
using hetsp::attention::RowRange;
using hetsp::attention::Segment;
using hetsp::attention::Shape;
using hetsp::attention::cuda::Tile;
using hetsp::attention::cuda::tile_rows;

// The segment cut down to the tensors; its first rows keep their positions.
inline Segment within(Segment s, const Shape& shape) {
  for (; s.q_begin < 0; ++s.q_begin) ++s.q_pos0;
  for (; s.k_begin < 0; ++s.k_begin) ++s.k_pos0;
  s.q_end = std::min(s.q_end, shape.total_q), s.k_end = std::min(s.k_end, shape.total_k);
  return s;
}

inline RowRange rows_of(const Segment& s, Axis axis) {
  return axis == Axis::queries ? RowRange{s.q_begin, s.q_end} : RowRange{s.k_begin, s.k_end};
}

// Tiles of other rows, counted from the segment's first, from the first to the last that one of `rows` sees.
inline std::int64_t steps_of(const Segment& s, Axis axis, RowRange rows) {
  std::int64_t begin = INT64_MAX, end = INT64_MIN;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const RowRange seen = axis == Axis::queries ? visible_keys(s, row) : visible_queries(s, row);
    if (seen.begin >= seen.end) continue;
    begin = std::min(begin, seen.begin), end = std::max(end, seen.end);
  }
  if (begin >= end) return 0;
  const std::int64_t origin = rows_of(s, axis == Axis::queries ? Axis::keys : Axis::queries).begin;
  return (end - 1 - origin) / tile_rows - (begin - origin) / tile_rows + 1;
}

inline std::vector<Tile> reference_tiles(const std::vector<Segment>& segments, const Shape& shape, Axis axis) {
  const std::int64_t total = axis == Axis::queries ? shape.total_q : shape.total_k;
  std::set<std::int64_t> cuts{0};
  for (const Segment& given : segments) {
    const Segment s = within(given, shape);
    const RowRange rows = rows_of(s, axis);
    if (s.q_begin >= s.q_end || s.k_begin >= s.k_end || rows.end - rows.begin < tile_rows) continue;
    cuts.insert(rows.begin), cuts.insert(rows.end);
  }
  cuts.insert(total);
  std::vector<Tile> tiles;
  for (auto cut = cuts.begin(); std::next(cut) != cuts.end(); ++cut)
    for (std::int64_t row = *cut; row < *std::next(cut); row += tile_rows)
      tiles.push_back({row, static_cast<std::int32_t>(std::min(tile_rows, *std::next(cut) - row)), 0, -1, 0});
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const Segment s = within(segments[i], shape);
    if (s.q_begin >= s.q_end || s.k_begin >= s.k_end) continue;
    const RowRange rows = rows_of(s, axis);
    auto tile =
        std::upper_bound(tiles.begin(), tiles.end(), rows.begin, [](std::int64_t row, const Tile& t) { return row < t.row0; });
    const std::int64_t steps_of_all = axis == Axis::keys ? steps_of(s, axis, rows) : 0;
    for (--tile; tile != tiles.end() && tile->row0 < rows.end; ++tile) {
      const auto index = static_cast<std::int32_t>(i);
      if (tile->last < 0) tile->first = index;
      tile->last = index;
      const RowRange own{std::max(rows.begin, tile->row0), std::min(rows.end, tile->row0 + tile->rows)};
      tile->steps += static_cast<std::int32_t>(axis == Axis::keys ? steps_of_all : steps_of(s, axis, own));
    }
  }
  const auto power = [](const Tile& t) {
    int bits = 0;
    while (std::int64_t{1} << bits <= t.steps) ++bits;
    return bits;
  };
  std::stable_sort(tiles.begin(), tiles.end(), [&](const Tile& a, const Tile& b) { return power(a) > power(b); });
  return tiles;
}

inline bool same(const Tile& a, const Tile& b) {
  return a.row0 == b.row0 && a.rows == b.rows && a.first == b.first && a.last == b.last && a.steps == b.steps;
}

inline std::string text(const Tile& t) {
  return "row " + std::to_string(t.row0) + " + " + std::to_string(t.rows) + ", segments " + std::to_string(t.first) + " .. " +
         std::to_string(t.last) + ", " + std::to_string(t.steps) + " steps";
}

// "" where the lists agree, else the first difference.
inline std::string difference(const std::vector<Tile>& actual, const std::vector<Tile>& expected) {
  for (std::size_t i = 0; i < std::min(actual.size(), expected.size()); ++i)
    if (!same(actual[i], expected[i]))
      return "tile " + std::to_string(i) + " is " + text(actual[i]) + ", should be " + text(expected[i]);
  if (actual.size() == expected.size()) return "";
  return std::to_string(actual.size()) + " tiles, should be " + std::to_string(expected.size());
}

}  // namespace attention_test
