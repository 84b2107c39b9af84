// What a column generation spends in its master: covering rows, one column each to start from, then rounds of ten columns that
// price out (cost below what the duals pay) and a warm solve each. Counters: pivots per solve, seconds per pivot and per solve.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <random>

#include "hetsp/lp/simplex.h"

namespace {

using namespace hetsp::lp;

Model covering(int rows, std::mt19937_64& random) {
  Model m;
  for (int i = 0; i < rows; ++i) m.add_row(1.0 + static_cast<double>(random() % 5), kInfinity);
  for (int i = 0; i < rows; ++i) {
    const Entry entry{i, 1.0};
    m.add_column(8.0, 0.0, kInfinity, std::span(&entry, 1));
  }
  return m;
}

// A multiset of about eight items in a group of 1 to 8 ranks, priced a little below what the duals pay.
void add_priced_column(Simplex& s, std::mt19937_64& random) {
  std::vector<Entry> entries;
  double worth = 0.0;
  for (int k = 0; k < 8; ++k) {
    const auto row = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(s.rows()));
    if (std::any_of(entries.begin(), entries.end(), [&](const Entry& e) { return e.index == row; })) continue;
    entries.push_back({row, 1.0 + static_cast<double>(random() % 2)});
    worth += entries.back().value * s.duals()[row];
  }
  s.add_column(std::max(1.0, worth * (0.8 + 0.2 * std::uniform_real_distribution<double>()(random))), 0.0, kInfinity, entries);
}

void grow_a_master(benchmark::State& state) {
  const int rows = static_cast<int>(state.range(0)), rounds = static_cast<int>(state.range(1));
  std::int64_t pivots = 0, solves = 0;
  for (auto _ : state) {
    std::mt19937_64 random(1);
    Simplex s(covering(rows, random));
    s.solve();
    for (int round = 0; round < rounds; ++round) {
      for (int k = 0; k < 10; ++k) add_priced_column(s, random);
      if (s.solve() != Status::optimal) state.SkipWithError("not optimal");
    }
    pivots += s.iterations(), solves += rounds + 1;
  }
  state.counters["pivots/solve"] = static_cast<double>(pivots) / static_cast<double>(solves);
  state.counters["pivot"] =
      benchmark::Counter(static_cast<double>(pivots), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["solve"] =
      benchmark::Counter(static_cast<double>(solves), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(grow_a_master)
    ->ArgNames({"rows", "rounds"})
    ->Args({15, 50})
    ->Args({100, 100})
    ->Args({300, 200})
    ->Unit(benchmark::kMillisecond);

// From nothing: the dual method on a random sparse programme.
void cold(benchmark::State& state) {
  const int rows = static_cast<int>(state.range(0)), columns = static_cast<int>(state.range(1));
  std::mt19937_64 random(2);
  Model m;
  for (int i = 0; i < rows; ++i) m.add_row(1.0 + static_cast<double>(random() % 9), kInfinity);
  for (int j = 0; j < columns; ++j) {
    std::vector<Entry> entries;
    for (int i = 0; i < rows; ++i)
      if (random() % static_cast<std::uint64_t>(rows) < 6) entries.push_back({i, 1.0 + static_cast<double>(random() % 3)});
    m.add_column(1.0 + static_cast<double>(random() % 50), 0.0, kInfinity, entries);
  }
  std::int64_t pivots = 0;
  for (auto _ : state) {
    Simplex s(m);
    if (s.solve() == Status::numerical) state.SkipWithError("numerical");
    pivots += s.iterations();
  }
  state.counters["pivot"] =
      benchmark::Counter(static_cast<double>(pivots), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(cold)->ArgNames({"rows", "columns"})->Args({100, 400})->Args({400, 1600})->Unit(benchmark::kMillisecond);

}  // namespace
