// A forward step of one tile, on every instruction set and element type, against sums in double.
#include "attention/tile_case.h"
#include "support/check.h"

using namespace tile_case;

namespace {

template <class Element>
struct Result {
  using Acc = typename AccOf<Element>::type;
  Block max{kTile * sizeof(double)}, sum{kTile * sizeof(double)}, out;
  explicit Result(std::int64_t dim_v) : out(static_cast<std::size_t>(dim_v * kTile) * sizeof(Acc)) {
    for (std::int64_t lane = 0; lane < kTile; ++lane)
      max.template as<Acc>()[lane] = -std::numeric_limits<Acc>::infinity(), sum.template as<Acc>()[lane] = 0;
    std::fill_n(out.template as<Acc>(), dim_v * kTile, Acc(0));
  }
};

// The keys from `begin` on, up to `end`, joined to what `result` holds.
template <class Element>
void step(const TileMath<Element>& math, const TileCase<Element>& t, std::int64_t begin, std::int64_t end, Result<Element>& r) {
  using Acc = typename AccOf<Element>::type;
  const Block q(math.lanes_bytes(t.dim)), k(math.rows_bytes(t.dim)), v(math.rows_bytes(t.dim_v)), scratch(math.scratch_bytes());
  TileMask mask = t.mask;
  mask.cut = false, mask.widest = 0;
  for (std::int64_t lane = 0; lane < kTile; ++lane) {
    mask.low[lane] = static_cast<std::int32_t>(std::clamp<std::int64_t>(t.mask.low[lane], begin, end) - begin);
    mask.high[lane] = static_cast<std::int32_t>(std::clamp<std::int64_t>(t.mask.high[lane], begin, end) - begin);
    if (lane >= t.rows) continue;
    mask.cut |= mask.low[lane] > 0 || mask.high[lane] < end - begin;
    mask.widest = std::max(mask.widest, mask.high[lane] - mask.low[lane]);
  }
  math.element.pack_lanes(t.q.data.data(), t.q.stride, t.rows, t.lanes, t.dim, t.factor(), q.get());
  math.element.pack_rows(t.k.data.data() + begin * t.k.stride, t.k.stride, end - begin, t.dim, k.get());
  math.element.pack_columns(t.v.data.data() + begin * t.v.stride, t.v.stride, end - begin, t.dim_v, v.get());
  const TileRegion region(math);
  math.forward({t.lanes, end - begin, t.dim, t.dim_v, q.get(), k.get(), v.get(), static_cast<Acc>(t.factor()), t.cap(), &mask,
                mask.cut && t.careful, scratch.get(), r.max.template as<Acc>(), r.sum.template as<Acc>(),
                r.out.template as<Acc>()});
}

template <class Element>
void compare(const TileMath<Element>& math, const TileCase<Element>& t, const Result<Element>& r) {
  using Acc = typename AccOf<Element>::type;
  const double u = std::numeric_limits<Acc>::epsilon(), terms = static_cast<double>(t.keys + t.dim + 10);
  for (std::int64_t row = 0; row < t.rows; ++row) {
    const double max = r.max.template as<Acc>()[row], sum = r.sum.template as<Acc>()[row];
    if (t.spoilt(row)) {
      CHECK(std::isnan(sum));
      continue;
    }
    double exact_sum = 0, blur = 1;
    std::vector<double> weights(static_cast<std::size_t>(t.keys));
    for (std::int64_t key = 0; key < t.keys; ++key) {
      if (!t.visible(row, key)) continue;
      const auto score = t.score(row, key);
      weights[static_cast<std::size_t>(key)] = std::exp(score.value);
      exact_sum += std::exp(score.value), blur = std::max(blur, score.mass);
    }
    if (exact_sum == 0) {
      CHECK_EQ(max, -kInfinity);
      CHECK_EQ(sum, 0.0);
      continue;
    }
    CHECK_NEAR(max / kLog2E + std::log(sum), std::log(exact_sum), u * terms * blur);
    for (std::int64_t i = 0; i < t.dim_v; ++i) {
      double out = 0, mass = 0;
      for (std::int64_t key = 0; key < t.keys; ++key) {
        if (!t.visible(row, key)) continue;
        const double term = weights[static_cast<std::size_t>(key)] / exact_sum * t.v.at(key, i);
        out += term, mass += std::abs(term);
      }
      CHECK_NEAR(r.out.template as<Acc>()[i * kTile + row] / sum, out, mass * (weight_error(math) + u * terms * blur));
    }
  }
}

}  // namespace

TEST(agrees_with_the_definition) {
  for_random_tiles(100, check::context(), []<class Element>(const TileMath<Element>& math, const TileCase<Element>& t, auto&) {
    Result<Element> result(t.dim_v);
    step(math, t, 0, t.keys, result);
    compare(math, t, result);
  });
}

TEST(keys_in_two_steps_join) {
  for_random_tiles(60, check::context(),
                   []<class Element>(const TileMath<Element>& math, const TileCase<Element>& t, auto& random) {
                     Result<Element> result(t.dim_v);
                     const std::int64_t cut = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(t.keys));
                     if (cut > 0) step(math, t, 0, cut, result);
                     step(math, t, cut, t.keys, result);
                     compare(math, t, result);
                   });
}

// One key has all the weight: its v comes back to the last bit, and the logarithm is the score.
TEST(one_key_is_exact) {
  for_random_tiles(40, check::context(), []<class Element>(const TileMath<Element>& math, TileCase<Element> t, auto&) {
    using Acc = typename AccOf<Element>::type;
    if (t.careful) return;  // its key may be NaN
    for (std::int64_t lane = 0; lane < kTile; ++lane) t.mask.low[lane] = 0, t.mask.high[lane] = 1;
    t.mask.cut = t.keys > 1;
    Result<Element> result(t.dim_v);
    step(math, t, 0, t.keys, result);
    for (std::int64_t row = 0; row < t.rows; ++row) {
      CHECK_EQ(result.sum.template as<Acc>()[row], Acc(1));
      for (std::int64_t i = 0; i < t.dim_v; ++i)
        CHECK_EQ(static_cast<double>(result.out.template as<Acc>()[i * kTile + row]), t.v.at(0, i));
    }
  });
}

TEST_MAIN()
