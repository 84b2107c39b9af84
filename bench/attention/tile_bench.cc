// One tile of 64 keys by 64 queries, packed and in the cache: the arithmetic of every instruction set without schedule and
// memory, which is the most that a pass can reach. FLOP/s of the products; "causal": a tile on the diagonal, useful pairs only.
#include <benchmark/benchmark.h>

#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "hetsp/attention/cpu/isa.h"
#include "hetsp/attention/number.h"

namespace {

using namespace hetsp::attention::cpu;
using hetsp::attention::BFloat16;
using hetsp::attention::to_bfloat16;

struct Free {
  void operator()(void* data) const { ::operator delete(data, std::align_val_t{64}); }
};
using Block = std::unique_ptr<void, Free>;
Block block(std::size_t bytes) {
  Block made(::operator new(bytes, std::align_val_t{64}));
  std::memset(made.get(), 0, bytes);
  return made;
}

void assign(float x, float& to) { to = x; }
void assign(float x, BFloat16& to) { to = to_bfloat16(x); }

template <class Element>
struct Tile {
  TileMath<Element> math;
  std::int64_t dim;
  TileMask mask{};
  Block q, dout, k, v, k_columns, v_columns, q_pairs, dout_pairs, scratch, statistics, sums;

  Tile(Isa isa, std::int64_t head_dim, bool causal) : math(tile_math<Element>(isa)), dim(head_dim) {
    std::mt19937 random(0);
    std::normal_distribution<float> normal;
    std::vector<Element> data(static_cast<std::size_t>(kTile * dim));
    for (Element& x : data) assign(normal(random), x);
    for (Block* lanes : {&q, &dout}) {
      *lanes = block(math.lanes_bytes(dim));
      math.element.pack_lanes(data.data(), dim, kTile, kTile, dim, 0.18, lanes->get());
    }
    for (Block* rows : {&k, &v}) {
      *rows = block(math.rows_bytes(dim));
      math.element.pack_rows(data.data(), dim, kTile, dim, rows->get());
    }
    for (Block* pairs : {&q_pairs, &dout_pairs}) {
      *pairs = block(math.rows_bytes(dim));
      math.element.pack_pairs(data.data(), dim, kTile, dim, pairs->get());
    }
    for (Block* columns : {&k_columns, &v_columns}) {
      *columns = block(math.rows_bytes(dim));
      math.element.pack_columns(data.data(), dim, kTile, dim, columns->get());
    }
    scratch = block(math.scratch_bytes());
    statistics = block(5 * kTile * sizeof(float));
    sums = block(static_cast<std::size_t>(3 * kTile * ((dim + kLanes - 1) / kLanes * kLanes)) * sizeof(float));
    mask.cut = causal, mask.widest = kTile;
    for (std::int32_t lane = 0; lane < kTile; ++lane) mask.low[lane] = 0, mask.high[lane] = causal ? lane + 1 : kTile;
    for (std::int64_t i = 0; i < kTile; ++i) at(0)[i] = 9;
  }
  float* at(std::int64_t statistic) { return static_cast<float*>(statistics.get()) + statistic * kTile; }
  float* sum(std::int64_t which) { return static_cast<float*>(sums.get()) + which * kTile * dim; }

  void forward() {
    math.forward({kTile, kTile, dim, dim, q.get(), k.get(), v_columns.get(), 0.18F, 0, &mask, false, scratch.get(), at(3),
                  at(4), sum(0)});
  }
  void backward() {
    math.backward({kTile,         kTile,
                   kTile,         dim,
                   dim,           q.get(),
                   dout.get(),    k.get(),
                   v.get(),       k_columns.get(),
                   q_pairs.get(), dout_pairs.get(),
                   0.18F,         0,
                   &mask,         false,
                   at(0),         at(1),
                   at(2),         scratch.get(),
                   sum(0),        sum(1),
                   sum(2)});
  }
};

template <class Element>
void add(Isa isa, const char* type, std::int64_t dim, bool causal, bool backward) {
  const std::string label = std::string("tile/") + name(isa) + "/" + type + "/dim:" + std::to_string(dim) +
                            (causal ? "/causal" : "/whole") + (backward ? "/backward" : "/forward");
  benchmark::RegisterBenchmark(label.c_str(), [=](benchmark::State& state) {
    Tile<Element> tile(isa, dim, causal);
    const TileRegion region(tile.math);
    for (auto _ : state) backward ? tile.backward() : tile.forward();
    const double pairs = causal ? kTile * (kTile + 1) / 2.0 : kTile * kTile * 1.0;
    const double flop = (backward ? 10.0 : 4.0) * pairs * static_cast<double>(dim);
    state.counters["FLOP/s"] = benchmark::Counter(flop * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate,
                                                  benchmark::Counter::kIs1000);
  });
}

const bool registered = [] {
  for (const Isa isa : supported_isas())
    for (const std::int64_t dim : {64, 128})
      for (const bool causal : {false, true})
        for (const bool backward : {false, true}) {
          add<float>(isa, "float32", dim, causal, backward);
          add<BFloat16>(isa, "bfloat16", dim, causal, backward);
        }
  return true;
}();

}  // namespace
