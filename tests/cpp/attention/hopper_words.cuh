// Cases of warp.cuh: indices, shuffles, conversions, and how far the approximate functions are from the true ones.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "attention/hopper_case.cuh"

namespace hopper_primitives {

// Indices, the elected lane and shuffles: seven numbers a thread.
struct WarpWords {
  static constexpr int threads = 256, words = 7;
  struct Shared {};
  float* out;  // [threads][words]

  __device__ void operator()(Shared&) const {
    const int thread = static_cast<int>(threadIdx.x);
    float* own = out + thread * words;
    own[0] = static_cast<float>(warpgroup_index());
    own[1] = static_cast<float>(warp_index());
    own[2] = static_cast<float>(lane_index());
    own[3] = elect_one() ? 1.0f : 0.0f;
    own[4] = shuffle_xor(static_cast<float>(thread), 1) + shuffle_xor(static_cast<float>(thread), 2) * 1000;
    own[5] = static_cast<float>(shuffle(static_cast<std::uint32_t>(thread), 5));
    own[6] = static_cast<float>(shuffle(thread, (thread + 3) % 32));
  }
};

inline std::string warp_words() {
  backend::Buffer<float> out(std::vector<float>(WarpWords::threads * WarpWords::words, -1.0f));
  backend::run(1, WarpWords{out.device()});
  std::vector<float> got = out.fetch(), wanted;
  for (int warp = 0; warp < WarpWords::threads / 32; ++warp) {
    float elected = 0;
    for (int lane = 0; lane < 32; ++lane) {
      const int t = warp * 32 + lane;
      elected += got[t * WarpWords::words + 3];
      got[t * WarpWords::words + 3] = 0;
      for (const int value : {t / 128, warp, lane, 0, (t ^ 1) + (t ^ 2) * 1000, warp * 32 + 5, warp * 32 + (lane + 3) % 32})
        wanted.push_back(static_cast<float>(value));
    }
    if (elected != 1.0f) return "warp " + std::to_string(warp) + " elects " + std::to_string(elected) + " lanes";
  }
  return compare("word", got, wanted);
}

// Four 8 x 8 matrices a warp, their rows at places of a rule of its own: what the lanes hold, and what lies where.
struct StoredMatrices {
  static constexpr int threads = 64, words = 4 * 32;  // a warp's
  struct Shared {
    alignas(16) std::uint32_t word[threads / 32 * words];
  };
  std::uint32_t* out;  // [threads / 32][4][8][4]

  __device__ static int place_of(int matrix, int row) { return (5 * (8 * matrix + row) + 3) % 32; }  // of 16 bytes

  __device__ void operator()(Shared& shared) const {
    const int lane = lane_index(), first = static_cast<int>(threadIdx.x) / 32 * words;
    std::uint32_t tile[4];
    for (int m = 0; m < 4; ++m) tile[m] = static_cast<std::uint32_t>(first + 100000 * m + lane);
    store_matrices(shared.word + first + 4 * place_of(lane / 8, lane % 8), tile);
    __syncwarp();
    for (int m = 0; m < 4; ++m) {
      const int row = lane / 4, word = lane % 4;
      out[first + 32 * m + lane] = shared.word[first + 4 * place_of(m, row) + word];
    }
  }
};

inline std::string stored_matrices() {
  constexpr int words = StoredMatrices::threads * 4;
  backend::Buffer<std::uint32_t> out(std::vector<std::uint32_t>(words, 7));
  backend::run(1, StoredMatrices{out.device()});
  const std::vector<std::uint32_t> got = out.fetch();
  for (int i = 0; i < words; ++i) {
    const auto wanted =
        static_cast<std::uint32_t>(i / StoredMatrices::words * StoredMatrices::words + 100000 * (i / 32 % 4) + i % 32);
    if (got[i] != wanted) return differs("word", static_cast<std::size_t>(i), got[i], wanted);
  }
  return "";
}

enum class Function { exp2, log2, tanh };
template <Function F>
struct Values {
  static constexpr int threads = 256;
  struct Shared {};
  const float* x;
  float* y;
  int count;
  __device__ void operator()(Shared&) const {
    for (int i = static_cast<int>(blockIdx.x) * threads + static_cast<int>(threadIdx.x); i < count;
         i += static_cast<int>(gridDim.x) * threads)
      y[i] = F == Function::exp2 ? exp2_fast(x[i]) : F == Function::log2 ? log2_fast(x[i]) : tanh_fast(x[i]);
  }
};

// Largest error over `count` numbers spread evenly over [low, high], relative to max(|true value|, least); and where.
template <Function F>
std::string error_of(double low, double high, double least, double allowed, int count) {
  std::vector<float> x(count);
  for (int i = 0; i < count; ++i) x[i] = static_cast<float>(low + (high - low) * i / (count - 1));
  backend::Buffer<float> in(x), out(std::vector<float>(count, -1.0f));
  backend::run(16, Values<F>{in.device(), out.device(), count});
  const std::vector<float> y = out.fetch();
  double worst = 0, where = 0;
  for (int i = 0; i < count; ++i) {
    const double at = x[i], truth = F == Function::exp2 ? std::exp2(at) : F == Function::log2 ? std::log2(at) : std::tanh(at);
    const double error = std::abs(y[i] - truth) / std::fmax(std::abs(truth), least);
    if (!(error <= worst)) worst = error, where = at;
  }
  std::printf("  largest error 2^%.2f at %.9g\n", std::log2(worst), where);
  return worst <= allowed ? "" : "error " + std::to_string(worst / allowed) + " times the allowed";
}

template <Function F>
std::string special_values(const std::vector<float>& x, const std::vector<float>& wanted) {
  backend::Buffer<float> in(x), out(std::vector<float>(x.size(), -1.0f));
  backend::run(1, Values<F>{in.device(), out.device(), static_cast<int>(x.size())});
  const std::vector<float> y = out.fetch();
  for (std::size_t i = 0; i < x.size(); ++i)
    if (!(y[i] == wanted[i] || (std::isnan(y[i]) && std::isnan(wanted[i])))) return differs("f", i, y[i], wanted[i]);
  return "";
}

inline std::string special_exp2() {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  return special_values<Function::exp2>({-inf, 0, 1, -1, -126, -127, -1000, 128, inf, nan},
                                        {0, 1, 2, 0.5f, 0x1p-126f, 0, 0, inf, inf, nan});
}
inline std::string special_log2() {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  return special_values<Function::log2>({0, 1, inf, -1, nan}, {-inf, 0, inf, nan, nan});
}
inline std::string special_tanh() {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  return special_values<Function::tanh>({0, inf, -inf, 100, -100, nan}, {0, 1, -1, 1, -1, nan});
}

template <class Element>
struct Pack {
  static constexpr int threads = 128;
  struct Shared {};
  const float* x;
  std::uint32_t* y;
  int count;  // pairs
  __device__ void operator()(Shared&) const {
    for (int i = static_cast<int>(threadIdx.x); i < count; i += threads) y[i] = pack<Element>(x[2 * i], x[2 * i + 1]);
  }
};

// Ties, neighbours of ties, subnormals, overflow, infinities; a NaN must stay one.
template <class Element>
std::string packing() {
  std::vector<float> x;
  std::uint32_t state = 12345;
  for (int i = 0; i < 40000; ++i) {
    state = state * 1664525u + 1013904223u;
    std::uint32_t bits = state;
    if (i % 3 == 1) bits = (state & 0xffff0000u) | 0x8000u;  // a tie in bf16
    if (i % 3 == 2) bits = (state & 0x87ffe000u) | 0x38000000u | (i % 2 == 0 ? 0x1000u : 0);  // near 1, a tie in f16
    float value = 0;
    std::memcpy(&value, &bits, 4);
    x.push_back(value);
  }
  for (const float value : {65519.0f, 65520.0f, 65504.0f, 0x1p-24f, 0x1p-25f, 0x1.8p-25f, 0x1p-14f, -0.0f, 3.4e38f, -3.4e38f})
    x.push_back(value);
  const int pairs = static_cast<int>(x.size() / 2);
  backend::Buffer<float> in(x);
  backend::Buffer<std::uint32_t> out(std::vector<std::uint32_t>(pairs, 0));
  backend::run(1, Pack<Element>{in.device(), out.device(), pairs});
  const std::vector<std::uint32_t> y = out.fetch();
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto got = static_cast<std::uint16_t>(y[i / 2] >> (i % 2 * 16)), wanted = round_to<Element>(x[i]);
    constexpr unsigned infinity = is_bf16<Element> ? 0x7f80 : 0x7c00;
    if (got != wanted && !(std::isnan(x[i]) && (got & 0x7fffu) > infinity)) return differs("bits", i, got, wanted);
  }
  return "";
}

}  // namespace hopper_primitives
