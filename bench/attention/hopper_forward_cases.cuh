// The calls that hopper_forward_bench.cu makes: documents, heads and features by name, and a call's memory on the device.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "attention/tile_list_reference.h"
#include "hetsp/attention/cuda/tile_list.h"
#include "hetsp/attention/number.h"
#include "hetsp/attention/params.h"

namespace hopper_forward_bench {

using namespace hetsp::attention;        // NOLINT(google-build-using-namespace): what is called
using namespace hetsp::attention::cuda;  // NOLINT(google-build-using-namespace)

inline void must(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::printf("FAIL %s: %s\n", what, cudaGetErrorString(status));
  std::exit(1);
}

template <class T>
T* device_array(std::int64_t count) {
  void* pointer = nullptr;
  must(cudaMalloc(&pointer, static_cast<std::size_t>(std::max<std::int64_t>(count, 1)) * sizeof(T)), "cudaMalloc");
  return static_cast<T*>(pointer);
}
template <class T>
T* to_device(const std::vector<T>& host) {
  T* device = device_array<T>(static_cast<std::int64_t>(host.size()));
  must(cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice), "copy in");
  return device;
}
template <class T>
std::vector<T> to_host(const T* device, std::int64_t count) {
  std::vector<T> host(static_cast<std::size_t>(count));
  must(cudaMemcpy(host.data(), device, host.size() * sizeof(T), cudaMemcpyDeviceToHost), "copy out");
  return host;
}

// Normal numbers from a counter: splitmix64 and Box-Muller.
__global__ void fill_normal(void* data, bool is_half, bool is_float, std::int64_t count, std::uint64_t seed) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    std::uint64_t x = (static_cast<std::uint64_t>(i) + seed * 0x100000001ull) * 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull, x = (x ^ x >> 27) * 0x94d049bb133111ebull, x ^= x >> 31;
    const float u = (static_cast<float>(x >> 40) + 0.5f) * 0x1p-24f, v = static_cast<float>(x & 0xffffff) * 0x1p-24f;
    const float value = sqrtf(-2 * logf(u)) * cospif(2 * v);
    if (is_float) {
      static_cast<float*>(data)[i] = value;
    } else if (is_half) {
      static_cast<Float16*>(data)[i] = to_float16(value);
    } else {
      static_cast<BFloat16*>(data)[i] = to_bfloat16(value);
    }
  }
}

struct Document {
  std::int64_t queries, keys;
};

struct Problem {
  std::string name;
  std::vector<Document> documents;
  std::int64_t heads, heads_kv, dim, dim_v;
  DType dtype = DType::bfloat16;
  std::int64_t left = -1, right = 0;  // right 0: causal
  double softcap = 0;
  bool sink = false, seed = false, acc = false, nan_tail = false;
  std::int64_t gap = 0;               // unused rows behind each document
};

// A problem on the device.
struct Data {
  Shape shape{};
  std::vector<Segment> segments;
  ForwardParams params{};
  TileList queries{};
  std::int32_t* next_item = nullptr;
  std::int64_t tiles = 0;
  double flops = 0;
};

inline Data make_data(const Problem& p) {
  Data d;
  Shape& s = d.shape;
  s.heads = p.heads, s.heads_kv = p.heads_kv, s.head_dim = p.dim, s.head_dim_v = p.dim_v, s.dtype = p.dtype;
  for (const Document& document : p.documents) {
    d.segments.push_back({s.total_q, s.total_q + document.queries, s.total_k, s.total_k + document.keys,
                          document.keys - document.queries, 0, p.left, p.right});
    s.total_q += document.queries + p.gap, s.total_k += document.keys + p.gap;
  }
  for (const Segment& segment : d.segments)
    d.flops += 2.0 * static_cast<double>(p.dim + p.dim_v) * static_cast<double>(p.heads * visible_pairs(segment));
  const bool is_half = p.dtype == DType::float16;
  const auto normal = [&](std::int64_t tokens, std::int64_t heads, std::int64_t dim, std::uint64_t seed,
                          bool is_float = false) {
    const std::int64_t count = tokens * heads * dim;
    void* data = is_float ? static_cast<void*>(device_array<float>(count)) : device_array<BFloat16>(count);
    fill_normal<<<1024, 256>>>(data, is_half, is_float, count, seed);
    must(cudaDeviceSynchronize(), "fill");
    return ConstView{data, heads * dim, dim};
  };
  ForwardParams& f = d.params;
  f.shape = s, f.score = {1 / std::sqrt(static_cast<double>(p.dim)), p.softcap};
  f.segments = to_device(d.segments), f.segment_count = static_cast<std::int64_t>(d.segments.size());
  f.q = normal(s.total_q, p.heads, p.dim, 1), f.k = normal(s.total_k, p.heads_kv, p.dim, 2),
  f.v = normal(s.total_k, p.heads_kv, p.dim_v, 3);
  if (p.sink) f.sink = normal(1, p.heads, 1, 4, true).data;
  if (p.seed)
    f.seed_out = normal(s.total_q, p.heads, p.dim_v, 5, true), f.seed_lse = normal(1, p.heads, s.total_q, 6, true).data;
  if (p.nan_tail)
    for (const Segment& segment : d.segments) {
      const auto poison = [&](const ConstView& view, std::int64_t row, std::int64_t heads, std::int64_t dim) {
        const std::vector<BFloat16> nan(static_cast<std::size_t>(p.gap * heads * dim), BFloat16{0x7fff});
        must(cudaMemcpy(const_cast<BFloat16*>(static_cast<const BFloat16*>(view.data)) + row * view.token_stride, nan.data(),
                        nan.size() * 2, cudaMemcpyHostToDevice),
             "poison");
      };
      poison(f.q, segment.q_end, p.heads, p.dim), poison(f.k, segment.k_end, p.heads_kv, p.dim);
      poison(f.v, segment.k_end, p.heads_kv, p.dim_v);
    }
  f.out_is_acc = p.acc;
  f.out = {p.acc ? static_cast<void*>(device_array<float>(s.total_q * p.heads * p.dim_v))
                 : device_array<BFloat16>(s.total_q * p.heads * p.dim_v),
           p.heads * p.dim_v, p.dim_v};
  f.lse = device_array<float>(s.total_q * p.heads);
  must(cudaMemset(f.out.data, 0xff, static_cast<std::size_t>(s.total_q * p.heads * p.dim_v) * (p.acc ? 4 : 2)), "clear");
  must(cudaMemset(f.lse, 0xff, static_cast<std::size_t>(s.total_q * p.heads) * 4), "clear");
  const std::vector<Tile> tiles = attention_test::reference_tiles(d.segments, s, Axis::queries);
  d.tiles = static_cast<std::int64_t>(tiles.size());
  d.queries = {to_device(tiles), to_device(std::vector<std::int32_t>{static_cast<std::int32_t>(tiles.size())})};
  d.next_item = device_array<std::int32_t>(1);
  return d;
}

// Many documents, few long: a log-normal of median 1600 and sigma 1.5 (a web crawl's shape), cut at 16K, up to `total` tokens.
inline std::vector<Document> skewed(std::int64_t total, unsigned seed) {
  std::mt19937 random(seed);
  std::lognormal_distribution<double> length(std::log(1600.0), 1.5);
  std::vector<Document> documents;
  for (std::int64_t left = total; left > 0;) {
    const std::int64_t tokens =
        std::min<std::int64_t>({left, 16384, std::max<std::int64_t>(16, static_cast<std::int64_t>(length(random)))});
    documents.push_back({tokens, tokens}), left -= tokens;
  }
  return documents;
}
inline std::vector<Document> square(const std::vector<std::int64_t>& lengths) {
  std::vector<Document> documents;
  for (const std::int64_t tokens : lengths) documents.push_back({tokens, tokens});
  return documents;
}
inline std::vector<Document> equal(std::int64_t count, std::int64_t tokens) {
  return std::vector<Document>(static_cast<std::size_t>(count), {tokens, tokens});
}

inline std::vector<Problem> problems_to_check(std::int64_t dim, std::int64_t dim_v, DType dtype) {
  std::vector<Problem> all;
  const auto add = [&](const char* name, std::vector<Document> documents, const std::function<void(Problem&)>& change = {}) {
    Problem p{name, std::move(documents), 2, 2, dim, dim_v, dtype};
    if (change) change(p);
    all.push_back(p);
  };
  add("one tile full", equal(1, 128), [](Problem& p) { p.right = -1; });
  add("causal 128", equal(1, 128));
  add("causal 500", equal(1, 500));
  add("full 333x411", {{333, 411}}, [](Problem& p) { p.right = -1; });
  add("causal 411x333", {{411, 333}});
  add("lengths", {{1, 1}, {7, 7}, {0, 0}, {64, 64}, {65, 65}, {130, 130}, {3, 3}, {200, 200}, {16, 16}, {31, 31}});
  add("gqa 8:1 lengths", {{100, 100}, {129, 129}, {40, 40}, {300, 300}}, [](Problem& p) { p.heads = 8, p.heads_kv = 1; });
  add("window 70", {{400, 400}, {90, 90}, {260, 260}}, [](Problem& p) { p.left = 70; });
  add("window both", {{400, 450}, {90, 20}}, [](Problem& p) { p.left = 100, p.right = 30; });
  add("softcap", {{300, 300}, {50, 50}}, [](Problem& p) { p.softcap = 2; });
  add("sink seed acc", {{300, 300}, {0, 40}, {50, 0}, {77, 99}}, [](Problem& p) { p.sink = p.seed = p.acc = true; });
  add("nan in gaps", {{100, 100}, {20, 20}, {150, 150}, {33, 33}}, [](Problem& p) { p.gap = 13, p.nan_tail = true; });
  add("narrower dims", {{200, 200}, {30, 30}}, [](Problem& p) { p.dim -= 24, p.dim_v -= 40; });
  add("long", {{5000, 5000}, {3000, 3000}});
  add("many", skewed(20000, 3));
  return all;
}

inline std::vector<Problem> problems_to_time() {
  const auto with = [](Problem p, std::int64_t right) { return p.right = right, p; };
  std::vector<Problem> all{{"causal 16k d128", equal(1, 16384), 16, 16, 128, 128},
                           {"causal 4x4k d128", equal(4, 4096), 16, 16, 128, 128},
                           with({"full 16k d128", equal(1, 16384), 16, 16, 128, 128}, -1),
                           {"packed 32k d128", skewed(32768, 1), 16, 16, 128, 128},
                           {"64K + 250x256 d128", equal(250, 256), 8, 8, 128, 128},
                           {"causal 16k gqa 16:2 d128", equal(1, 16384), 16, 2, 128, 128},
                           {"causal 1k x 16 d128", equal(16, 1024), 16, 16, 128, 128},
                           {"causal 16k d64", equal(1, 16384), 16, 16, 64, 64},
                           with({"full 16k d64", equal(1, 16384), 16, 16, 64, 64}, -1),
                           {"causal 16k d192", equal(1, 16384), 8, 8, 192, 128},
                           {"causal 16k d256", equal(1, 16384), 8, 8, 256, 256},
                           {"causal 16k d128 fp16", equal(1, 16384), 16, 16, 128, 128, DType::float16}};
  // bench/attention/cuda_rows.py says where these lengths come from.
  all.push_back(
      {"source files 32k d128", square({4524, 52, 6727, 509, 8528, 1706, 3264, 1649, 384, 494, 610, 4321}), 16, 16, 128, 128});
  all.push_back({"wikipedia 32k d128", square({289, 365, 555, 245, 4354, 119, 1804, 356, 2008, 65,  2135, 278, 294, 165, 561,
                                               743, 91,  110, 639, 1465, 227, 111,  795, 77,   472, 34,   82,  186, 238, 646,
                                               392, 45,  463, 608, 62,   67,  1383, 221, 1202, 260, 342,  157, 74,  108, 766,
                                               150, 132, 151, 517, 172,  457, 60,   482, 351,  326, 2928, 183, 730, 470}),
                 16, 16, 128, 128});
  Problem hop = with({"hop 16k to float32 d128", equal(1, 16384), 16, 16, 128, 128}, -1);
  hop.acc = true;
  all.push_back(hop);
  hop.name = "hop 16k with seed d128", hop.seed = true;
  all.push_back(hop);
  all[4].documents.insert(all[4].documents.begin(), {65536, 65536});
  return all;
}

}  // namespace hopper_forward_bench
