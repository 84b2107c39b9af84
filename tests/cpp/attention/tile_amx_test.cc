// The level amx: the emulated registers against the manual's words, the algorithm on them against the one of AVX512_BF16, and
// the level's own code, instruction by instruction, against the emulation. (tile_forward_test, tile_backward_test,
// tile_bf16_move_test and cpu_fuzz_test hold the algorithm against sums in double.)
#include <bit>
#include <cstdio>
#include <cstring>

#include "attention/tile_case.h"
#include "hetsp/base/error.h"
#include "support/amx_emulator.h"
#include "support/amx_trap.h"
#include "support/check.h"

using namespace tile_case;

namespace hetsp::attention::cpu::amx {
TileMath<BFloat16> pair_math();
}

namespace {

constexpr float kLeast = 0x1p-126F;  // of the normal numbers

float flushed(float x) { return std::abs(x) < kLeast ? std::copysign(0.0F, x) : x; }
std::uint32_t bits(float x) { return std::isnan(x) ? 0x7fc00000U : std::bit_cast<std::uint32_t>(x); }

// Any number, biased to corners: few bits, near each other, subnormal, huge.
float some_number(std::mt19937& random) {
  const float corners[] = {0, -0.0F, 1, -1, kLeast, -kLeast, 0x1p-127F, 0x1.fep127F, 0x1p-63F, HUGE_VALF, NAN, 0x1.02p-149F};
  if (random() % 8 == 0) return corners[random() % 12];
  const int exponent = random() % 4 == 0 ? static_cast<int>(random() % 250) - 125 : static_cast<int>(random() % 30) - 15;
  const float x = std::ldexp(1 + static_cast<float>(random() % (1U << 23)) * 0x1p-23F, exponent);
  return random() % 2 ? x : -x;
}
float some_brain(std::mt19937& random) { return to_float(hetsp::attention::to_bfloat16(some_number(random))); }

// Both factors and sums of one instruction, 16 rows of 64 bytes each.
struct Operands {
  alignas(64) std::uint16_t a[16][32], b[16][32];
  alignas(64) float c[16][16];
};

Operands dot(Operands x) {
  unsigned char config[64] = {1};
  for (int t = 0; t < 3; ++t) config[16 + 2 * t] = 64, config[48 + t] = 16;
  auto& tiles = amx_emulator::this_thread();
  tiles.configure(config);
  tiles.load(0, x.c, 64), tiles.load(1, x.a, 64), tiles.load(2, x.b, 64);
  tiles.dot(0, 1, 2);
  tiles.store(0, x.c, 64);
  tiles.release();
  return x;
}

void set(std::uint16_t& to, float x) { to = hetsp::attention::to_bfloat16(x).bits; }

// A forward and a backward step of a random tile, all results in a row.
std::vector<float> steps(const TileMath<BFloat16>& math, const TileCase<BFloat16>& t) {
  const std::int64_t dim_pad = (t.dim + kLanes - 1) / kLanes * kLanes, dim_v_pad = (t.dim_v + kLanes - 1) / kLanes * kLanes;
  const Block q(math.lanes_bytes(t.dim)), dout(math.lanes_bytes(t.dim_v)), k(math.rows_bytes(t.dim)),
      v(math.rows_bytes(t.dim_v)), k_columns(math.rows_bytes(t.dim)), v_columns(math.rows_bytes(t.dim_v)),
      q_pairs(math.rows_bytes(t.dim)), dout_pairs(math.rows_bytes(t.dim_v)), scratch(math.scratch_bytes());
  const Move<BFloat16>& move = math.element;
  move.pack_lanes(t.q.data.data(), t.q.stride, t.rows, t.lanes, t.dim, t.factor(), q.get());
  move.pack_lanes(t.dout.data.data(), t.dout.stride, t.rows, t.lanes, t.dim_v, 1, dout.get());
  move.pack_rows(t.k.data.data(), t.k.stride, t.keys, t.dim, k.get());
  move.pack_rows(t.v.data.data(), t.v.stride, t.keys, t.dim_v, v.get());
  move.pack_columns(t.k.data.data(), t.k.stride, t.keys, t.dim, k_columns.get());
  move.pack_columns(t.v.data.data(), t.v.stride, t.keys, t.dim_v, v_columns.get());
  move.pack_pairs(t.q.data.data(), t.q.stride, t.rows, t.dim, q_pairs.get());
  move.pack_pairs(t.dout.data.data(), t.dout.stride, t.rows, t.dim_v, dout_pairs.get());
  // Results end where they end, so that a sanitizer sees a store behind them.
  const Block statistics(5 * kTile * sizeof(float)), out(static_cast<std::size_t>(t.dim_v * kTile) * sizeof(float)),
      dq(static_cast<std::size_t>(t.dim * kTile) * sizeof(float)),
      dk(static_cast<std::size_t>(t.keys * dim_pad) * sizeof(float)),
      dv(static_cast<std::size_t>(t.keys * dim_v_pad) * sizeof(float));
  float* const at = statistics.as<float>();
  float *const max = at, *const sum = at + kTile, *const high = at + 2 * kTile, *const low = at + 3 * kTile,
               *const delta = at + 4 * kTile;
  for (std::int64_t lane = 0; lane < kTile; ++lane) max[lane] = -HUGE_VALF, sum[lane] = low[lane] = 0;
  for (std::int64_t lane = 0; lane < kTile; ++lane) {
    high[lane] = lane < t.rows ? 5.0F : HUGE_VALF;  // any logarithm will do
    delta[lane] = lane < t.rows ? 0.25F : 0.0F;
  }
  std::fill_n(out.as<float>(), t.dim_v * kTile, 0.0F), std::fill_n(dq.as<float>(), t.dim * kTile, 0.0F);
  std::fill_n(dk.as<float>(), t.keys * dim_pad, 0.0F), std::fill_n(dv.as<float>(), t.keys * dim_v_pad, 0.0F);
  const auto factor = static_cast<float>(t.factor());
  const TileRegion region(math);
  math.forward({t.lanes, t.keys, t.dim, t.dim_v, q.get(), k.get(), v_columns.get(), factor, t.cap(), &t.mask,
                t.mask.cut && t.careful, scratch.get(), max, sum, out.as<float>()});
  math.backward({t.lanes,        t.keys,
                 t.rows,         t.dim,
                 t.dim_v,        q.get(),
                 dout.get(),     k.get(),
                 v.get(),        k_columns.get(),
                 q_pairs.get(),  dout_pairs.get(),
                 factor,         t.cap(),
                 &t.mask,        t.mask.cut && t.careful,
                 high,           low,
                 delta,          scratch.get(),
                 dq.as<float>(), dk.as<float>(),
                 dv.as<float>()});
  std::vector<float> all;
  const auto lanes_of = [&](const float* from, std::int64_t rows) {
    for (std::int64_t row = 0; row < rows; ++row) all.insert(all.end(), from + row * kTile, from + row * kTile + t.rows);
  };
  const auto rows_of = [&](const float* from, std::int64_t dim, std::int64_t step) {
    for (std::int64_t row = 0; row < t.keys; ++row) all.insert(all.end(), from + row * step, from + row * step + dim);
  };
  lanes_of(max, 2), lanes_of(out.as<float>(), t.dim_v), lanes_of(dq.as<float>(), t.dim);
  rows_of(dk.as<float>(), t.dim, dim_pad), rows_of(dv.as<float>(), t.dim_v, dim_v_pad);
  return all;
}

// body(case) for random tiles of bfloat16.
template <class Body>
void for_random_cases(unsigned seeds, const Body& body) {
  const std::int64_t dims[] = {1, 2, 15, 16, 17, 31, 32, 33, 40, 64, 72, 96, 128};
  for (unsigned seed = 0; seed < seeds; ++seed) {
    std::mt19937 random(900 + seed);
    const auto size = [&] { return random() % 4 == 0 ? kTile : 1 + static_cast<std::int64_t>(random() % kTile); };
    const std::int64_t rows = size(), keys = size(), dim = dims[random() % 13], dim_v = dims[random() % 13];
    TileCase<BFloat16> tile(random, rows, keys, dim, dim_v);
    if (random() % 4 == 0) tile.poison(random);
    check::context() = "seed " + std::to_string(900 + seed) + " " + tile.label();
    body(tile);
  }
}

}  // namespace

TEST(terms_are_fused_and_flushed) {
  std::mt19937 random(1);
  for (int i = 0; i < 300000; ++i) {
    const float a = some_brain(random), b = some_brain(random), c = some_number(random), d = some_number(random);
    const float fused = flushed(std::fma(flushed(a), flushed(b), flushed(c))), sum = flushed(flushed(c) + flushed(d));
    // What the host rounds up to the least normal number was less than it before, and is 0 for the instruction.
    if (std::abs(fused) != kLeast) CHECK_EQ(bits(amx_emulator::multiply_add(a, b, c)), bits(fused));
    CHECK_EQ(bits(amx_emulator::add(c, d)), bits(sum));
  }
  CHECK_EQ(bits(amx_emulator::multiply_add(0x1p-70F, 0x1p-70F, -0.0F)), bits(0.0F));
  CHECK_EQ(bits(amx_emulator::multiply_add(-0x1p-63F, 0x1.fep-64F, 0.0F)), bits(-0.0F));  // a subnormal result
  CHECK_EQ(bits(amx_emulator::multiply_add(0x1p-127F, 0x1p20F, 3.0F)), bits(3.0F));       // a subnormal factor
  CHECK_EQ(bits(amx_emulator::add(kLeast, 0x1p-127F)), bits(kLeast));
}

// Even and odd terms go to sums of their own, which meet at the end: with 2^24 among the even ones, a 1 among them is lost,
// while two odd ones are not.
TEST(even_and_odd_terms_meet_at_the_end) {
  Operands x{};
  for (int k = 0; k < 16; ++k) set(x.b[k][0], 1), set(x.b[k][1], 1);  // column 0
  set(x.a[0][0], 0x1p24F), set(x.a[0][2], 1), set(x.a[0][4], 1);      // row 0: 2^24 + 1 + 1 in even terms
  set(x.a[1][0], 0x1p24F), set(x.a[1][1], 1), set(x.a[1][3], 1);      // row 1: in odd ones, 2^24 + (1 + 1)
  set(x.a[2][0], 0x1p24F), set(x.a[2][2], -0x1p24F), x.c[2][0] = 1;   // row 2: C joins last
  const Operands y = dot(x);
  CHECK_EQ(y.c[0][0], 0x1p24F);
  CHECK_EQ(y.c[1][0], 0x1p24F + 2);
  CHECK_EQ(y.c[2][0], 1.0F);
  CHECK_EQ(y.c[0][1], 0.0F);
  CHECK_EQ(y.c[3][0], 0.0F);
}

TEST(a_dot_is_the_sum_of_its_products) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    Operands x;
    for (int m = 0; m < 16; ++m)
      for (int i = 0; i < 32; ++i)
        set(x.a[m][i], normal(random)), set(x.b[m][i], normal(random)), x.c[m][i / 2] = normal(random);
    const Operands y = dot(x);
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 16; ++n) {
        double sum = x.c[m][n], mass = std::abs(sum);
        for (int i = 0; i < 32; ++i) {
          const double term = widened(BFloat16{x.a[m][i]}) * widened(BFloat16{x.b[i / 2][2 * n + i % 2]});
          sum += term, mass += std::abs(term);
        }
        CHECK_NEAR(y.c[m][n], sum, 18 * 0x1p-24 * mass);
      }
  }
}

TEST(broken_rules_are_told) {
  auto& tiles = amx_emulator::this_thread();
  float memory[16][16];
  CHECK_THROWS(hetsp::InvalidArgument, "outside of a configured region", tiles.load(0, memory, 64));
  unsigned char config[64] = {2};
  CHECK_THROWS(hetsp::InvalidArgument, "palette is 2", tiles.configure(config));
  config[0] = 1, config[16] = 64;
  CHECK_THROWS(hetsp::InvalidArgument, "register 0 has 0 rows of 64 bytes", tiles.configure(config));
  config[48] = 16, config[5] = 1;
  CHECK_THROWS(hetsp::InvalidArgument, "byte 5", tiles.configure(config));
  config[5] = 0;
  tiles.configure(config);
  CHECK_THROWS(hetsp::InvalidArgument, "register 1 is not configured", tiles.zero(1));
  CHECK_THROWS(hetsp::InvalidArgument, "are not three", tiles.dot(0, 0, 0));
  tiles.release();
}

// Both levels round the same factors; their sums differ in order, and so in what the rounding of a weight falls on.
TEST(the_algorithm_agrees_with_avx512_bf16) {
  if (!levels::amx_is_emulated()) return void(std::printf("%s\n", levels::kNoEmulation));
  const auto emulated = hetsp::attention::cpu::amx_emulated::pair_math(), pairs = tile_math<BFloat16>(Isa::avx512_bf16);
  if (emulated.forward == pairs.forward) return void(std::printf("skipped: the compiler does not know AVX512_BF16\n"));
  for_random_cases(120, [&](const TileCase<BFloat16>& t) {
    const std::vector<float> a = steps(emulated, t), b = steps(pairs, t);
    CHECK_EQ(a.size(), b.size());
    double difference = 0, size = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      CHECK_EQ(std::isnan(a[i]), std::isnan(b[i]));
      CHECK_EQ(std::isinf(a[i]), std::isinf(b[i]));
      if (!std::isfinite(a[i]) || !std::isfinite(b[i])) continue;
      difference += std::pow(double{a[i]} - double{b[i]}, 2), size += std::pow(double{b[i]}, 2);
    }
    CHECK_NEAR(std::sqrt(difference), 0, 0x1p-9 * std::sqrt(size));  // a weight here and there, by a unit of its last place
    CHECK(!amx_emulator::this_thread().configured());
  });
  CHECK(amx_emulator::this_thread().dots() > 1000);
}

// Run by the CPU where it has AMX; elsewhere each of the code's instructions is trapped, and emulated.
TEST(the_code_of_the_level_is_the_emulated_algorithm_to_the_last_bit) {
  if (!levels::amx_is_emulated()) return void(std::printf("%s\n", levels::kNoEmulation));
  const auto emulated = hetsp::attention::cpu::amx_emulated::pair_math(), code = hetsp::attention::cpu::amx::pair_math();
  if (code.forward == tile_math<BFloat16>(Isa::avx512_bf16).forward)
    return void(std::printf("skipped: built without AMX-BF16: the level amx is avx512_bf16\n"));
  const std::string missing = hetsp::missing(Isa::amx);
  std::unique_ptr<amx_emulator::Trap> trap;
  if (missing.empty()) {
    std::printf("note: run by this CPU\n");
  } else {
    trap = std::make_unique<amx_emulator::Trap>();
    std::printf("note: %s: its instructions are trapped and emulated\n", missing.c_str());
  }
  for_random_cases(60, [&](const TileCase<BFloat16>& t) {
    const std::vector<float> a = steps(emulated, t), b = steps(code, t);
    CHECK_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) CHECK_EQ(bits(a[i]), bits(b[i]));
    CHECK(!amx_emulator::this_thread().configured());
  });
}

TEST_MAIN()
