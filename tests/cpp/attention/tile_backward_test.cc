// A backward step of one tile, on every instruction set and element type, against sums in double.
#include "attention/tile_case.h"
#include "support/check.h"

using namespace tile_case;

namespace {

template <class Element>
struct Result {
  using Acc = typename AccOf<Element>::type;
  std::int64_t dim_pad, dim_v_pad;
  Block dq, dk, dv;
  explicit Result(const TileCase<Element>& t)
      : dim_pad((t.dim + kLanes - 1) / kLanes * kLanes),
        dim_v_pad((t.dim_v + kLanes - 1) / kLanes * kLanes),
        dq(static_cast<std::size_t>(t.dim * kTile) * sizeof(Acc)),
        dk(static_cast<std::size_t>(t.keys * dim_pad) * sizeof(Acc)),
        dv(static_cast<std::size_t>(t.keys * dim_v_pad) * sizeof(Acc)) {
    std::fill_n(dq.template as<Acc>(), t.dim * kTile, Acc(0));
    std::fill_n(dk.template as<Acc>(), t.keys * dim_pad, Acc(0));
    std::fill_n(dv.template as<Acc>(), t.keys * dim_v_pad, Acc(0));
  }
};

// Natural logarithm of the sum of every row's weights, -inf without keys, NaN for a spoilt row.
template <class Element>
std::vector<double> logarithms(const TileCase<Element>& t) {
  std::vector<double> lse(static_cast<std::size_t>(t.rows));
  for (std::int64_t row = 0; row < t.rows; ++row) {
    double sum = 0;
    for (std::int64_t key = 0; key < t.keys; ++key)
      if (t.visible(row, key)) sum += std::exp(t.score(row, key).value);
    lse[static_cast<std::size_t>(row)] = std::log(sum);
  }
  return lse;
}

// delta of `out`, which is any tensor here: the step takes it as given.
template <class Element>
std::vector<typename AccOf<Element>::type> step(const TileMath<Element>& math, const TileCase<Element>& t,
                                                const std::vector<double>& lse, const Tensor<Element>& out,
                                                const Result<Element>& r) {
  using Acc = typename AccOf<Element>::type;
  const Block q(math.lanes_bytes(t.dim)), dout(math.lanes_bytes(t.dim_v)), k(math.rows_bytes(t.dim)),
      v(math.rows_bytes(t.dim_v));
  const Block k_columns(math.rows_bytes(t.dim)), q_pairs(math.rows_bytes(t.dim)), dout_pairs(math.rows_bytes(t.dim_v));
  const Block scratch(math.scratch_bytes());
  const auto& move = math.element;
  move.pack_lanes(t.q.data.data(), t.q.stride, t.rows, t.lanes, t.dim, t.factor(), q.get());
  move.pack_lanes(t.dout.data.data(), t.dout.stride, t.rows, t.lanes, t.dim_v, 1, dout.get());
  move.pack_rows(t.k.data.data(), t.k.stride, t.keys, t.dim, k.get());
  move.pack_rows(t.v.data.data(), t.v.stride, t.keys, t.dim_v, v.get());
  move.pack_columns(t.k.data.data(), t.k.stride, t.keys, t.dim, k_columns.get());
  move.pack_pairs(t.q.data.data(), t.q.stride, t.rows, t.dim, q_pairs.get());
  move.pack_pairs(t.dout.data.data(), t.dout.stride, t.rows, t.dim_v, dout_pairs.get());
  alignas(64) Acc high[kTile], low[kTile], delta[kTile] = {};
  move.delta(out.data.data(), out.stride, t.dout.data.data(), t.dout.stride, t.rows, t.dim_v, delta);
  for (std::int64_t lane = 0; lane < kTile; ++lane) {
    const double base_2 = lane < t.rows ? lse[static_cast<std::size_t>(lane)] * kLog2E : -kInfinity;
    high[lane] = base_2 == -kInfinity ? std::numeric_limits<Acc>::infinity() : static_cast<Acc>(base_2);
    low[lane] = std::isfinite(base_2) ? static_cast<Acc>(base_2 - static_cast<double>(high[lane])) : Acc(0);
  }
  const TileRegion region(math);
  math.backward({t.lanes,
                 t.keys,
                 t.rows,
                 t.dim,
                 t.dim_v,
                 q.get(),
                 dout.get(),
                 k.get(),
                 v.get(),
                 k_columns.get(),
                 q_pairs.get(),
                 dout_pairs.get(),
                 static_cast<Acc>(t.factor()),
                 t.cap(),
                 &t.mask,
                 t.careful,
                 high,
                 low,
                 delta,
                 scratch.get(),
                 r.dq.template as<Acc>(),
                 r.dk.template as<Acc>(),
                 r.dv.template as<Acc>()});
  return {delta, delta + t.rows};
}

struct Sum {
  double value = 0, mass = 0;
  void add(double term, double size) { value += term, mass += size; }
};

template <class Element>
void compare(const TileMath<Element>& math, const TileCase<Element>& t, const std::vector<double>& lse,
             const std::vector<typename AccOf<Element>::type>& delta, const Result<Element>& r) {
  using Acc = typename AccOf<Element>::type;
  const auto sums = [](std::int64_t count) { return std::vector<Sum>(static_cast<std::size_t>(count)); };
  std::vector<Sum> dq = sums(t.rows * t.dim), dk = sums(t.keys * t.dim), dv = sums(t.keys * t.dim_v);
  std::vector<bool> skip_row(static_cast<std::size_t>(t.rows)), skip_key(static_cast<std::size_t>(t.keys));
  const double u = std::numeric_limits<Acc>::epsilon();
  for (std::int64_t row = 0; row < t.rows; ++row)
    for (std::int64_t key = 0; key < t.keys; ++key) {
      if (!t.visible(row, key)) continue;
      if (t.spoilt(row)) {
        skip_row[static_cast<std::size_t>(row)] = skip_key[static_cast<std::size_t>(key)] = true;
        continue;
      }
      const auto score = t.score(row, key);
      const double norm = lse[static_cast<std::size_t>(row)], p = std::exp(score.value - norm);
      const double d = delta[static_cast<std::size_t>(row)];
      double dp = 0, dp_mass = std::abs(d);
      for (std::int64_t i = 0; i < t.dim_v; ++i) {
        const double term = t.dout.at(row, i) * t.v.at(key, i);
        dp += term, dp_mass += std::abs(term);
      }
      // Relative, beside the rounding of a term: its exponential takes over the score's error, dp and the sums have their own.
      const double blur =
          weight_error(math) + u * static_cast<double>(t.dim + t.dim_v + 64 + 10) * (1 + score.mass + std::abs(norm));
      const double ds = p * (dp - d) * score.slope, ds_mass = p * dp_mass;
      for (std::int64_t i = 0; i < t.dim; ++i) {
        const double k = t.k.at(key, i), q = t.q.at(row, i);
        const double exact = std::abs(ds) * weight_error(math), own = ds_mass * (blur - weight_error(math));
        dq[static_cast<std::size_t>(row * t.dim + i)].add(ds * k, std::abs(k) * (exact + own));
        dk[static_cast<std::size_t>(key * t.dim + i)].add(ds * q, std::abs(q) * (exact + own));
      }
      for (std::int64_t i = 0; i < t.dim_v; ++i) {
        const double dout = t.dout.at(row, i);
        dv[static_cast<std::size_t>(key * t.dim_v + i)].add(p * dout, p * std::abs(dout) * blur);
      }
    }
  for (std::int64_t row = 0; row < t.rows; ++row)
    for (std::int64_t i = 0; i < t.dim && !skip_row[static_cast<std::size_t>(row)]; ++i) {
      const Sum& expected = dq[static_cast<std::size_t>(row * t.dim + i)];
      CHECK_NEAR(r.dq.template as<Acc>()[i * kTile + row], expected.value, expected.mass);
    }
  for (std::int64_t key = 0; key < t.keys; ++key) {
    if (skip_key[static_cast<std::size_t>(key)]) continue;
    for (std::int64_t i = 0; i < t.dim; ++i) {
      const Sum& expected = dk[static_cast<std::size_t>(key * t.dim + i)];
      CHECK_NEAR(r.dk.template as<Acc>()[key * r.dim_pad + i], expected.value, expected.mass);
    }
    for (std::int64_t i = 0; i < t.dim_v; ++i) {
      const Sum& expected = dv[static_cast<std::size_t>(key * t.dim_v + i)];
      CHECK_NEAR(r.dv.template as<Acc>()[key * r.dim_v_pad + i], expected.value, expected.mass);
    }
  }
}

}  // namespace

TEST(agrees_with_the_definition) {
  for_random_tiles(100, check::context(),
                   []<class Element>(const TileMath<Element>& math, const TileCase<Element>& t, auto& random) {
                     const std::vector<double> lse = logarithms(t);
                     const Tensor<Element> out(t.rows, t.dim_v, random);
                     const Result<Element> result(t);
                     compare(math, t, lse, step(math, t, lse, out, result), result);
                   });
}

// A row that sees one key has out = v, and so dout . v = delta to the last bit: no gradient of q or k is left. (Products of
// float64 are not exact in double: a compiler's choice of fused ones leaves a trace.)
TEST(one_key_leaves_nothing) {
  for_random_tiles(40, check::context(), []<class Element>(const TileMath<Element>& math, TileCase<Element> t, auto& random) {
    using Acc = typename AccOf<Element>::type;
    if (t.careful) return;  // its key may be NaN
    for (std::int64_t lane = 0; lane < kTile; ++lane) t.mask.low[lane] = 0, t.mask.high[lane] = 1;
    t.mask.cut = t.keys > 1, t.mask.widest = 1;
    Tensor<Element> out(t.rows, t.dim_v, random);
    for (std::int64_t row = 0; row < t.rows; ++row)
      for (std::int64_t i = 0; i < t.dim_v; ++i)
        rounded(t.v.at(0, i), out.data[static_cast<std::size_t>(row * out.stride + i)]);
    const Result<Element> result(t);
    step(math, t, logarithms(t), out, result);
    const double allowed = sizeof(Acc) == sizeof(double) ? 1e-13 : 0;
    for (std::int64_t i = 0; i < t.dim; ++i) {
      for (std::int64_t row = 0; row < t.rows; ++row) CHECK_NEAR(result.dq.template as<Acc>()[i * kTile + row], 0, allowed);
      CHECK_NEAR(result.dk.template as<Acc>()[i], 0, allowed);
    }
  });
}

TEST_MAIN()
