// The Hopper backward alone on a GPU, without torch: sampled gradients against float64 maths on the host, then its time.
//
//   nvcc -std=c++20 -O3 -DNDEBUG --expt-relaxed-constexpr -gencode arch=compute_90a,code=sm_90a -cudart static -Icsrc
//     -Itests/cpp bench/attention/hopper_backward_bench.cu csrc/hetsp/attention/segment.cc -o hopper_backward_bench
//     csrc/hetsp/attention/cuda/{tile_list,hopper/{tensor_map,launch_backward,dq_sums,backward_{bf16,f16}_{64,128}}}.cu
//     csrc/hetsp/attention/cuda/hopper/{launch_backward_split,backward_split_{bf16,f16}_{128,192,256}}.cu
//   hopper_backward_bench [--check] case...
//
// A case: NAME=VALUE,... of lengths (joined by +, a x b repeats a b times, or @FILE), heads, kv, dim, dim_v, half
// (float16), full (not causal), left (window), softcap, gap (rows of NaN behind each document), nan (the document that
// holds nothing else), split (backward_split.h; then "kernel" is that of dk and dv, "after" that of dq). One line each:
// worst error as a part of its bound, median and best TFLOP/s of the kernel, the passes before (list, zeroed sums, D) and
// after (dq), and all in one go. Flops: 2 (3 d + 2 d_v) a pair, causal pairs counted as n^2 / 2. lse and D are plausible
// numbers and not those of a softmax: the backward is defined for any.
//
// Long because it makes, checks and times a whole call by itself.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "hetsp/attention/cuda/hopper/backward.h"
#include "hetsp/attention/cuda/hopper/backward_split.h"
#include "hetsp/attention/cuda/hopper/tensor_map.h"
#include "hetsp/attention/cuda/launch.cuh"

using namespace hetsp::attention;
using namespace hetsp::attention::cuda;

namespace {

struct Options {
  std::vector<std::int64_t> lengths{1024};
  std::int64_t heads = 16, kv = 0, dim = 128, dim_v = 0, left = -1, gap = 0, nan = -1;
  double softcap = 0;
  bool half = false, full = false, split = false;
};

Options parse(const std::string& text) {
  Options o;
  std::stringstream fields(text);
  for (std::string field; std::getline(fields, field, ',');) {
    const std::string key = field.substr(0, field.find('='));
    const std::string value = field.find('=') == std::string::npos ? "1" : field.substr(field.find('=') + 1);
    if (key == "lengths") {
      o.lengths.clear();
      if (value[0] == '@') {
        std::ifstream file(value.substr(1));
        for (std::int64_t n; file >> n;) o.lengths.push_back(n);
      } else {
        std::stringstream parts(value);
        for (std::string part; std::getline(parts, part, '+');) {
          const std::size_t x = part.find('x');
          const std::int64_t count = x == std::string::npos ? 1 : std::stoll(part.substr(0, x));
          o.lengths.insert(o.lengths.end(), static_cast<std::size_t>(count),
                           std::stoll(x == std::string::npos ? part : part.substr(x + 1)));
        }
      }
    } else if (key == "heads")
      o.heads = std::stoll(value);
    else if (key == "kv")
      o.kv = std::stoll(value);
    else if (key == "dim")
      o.dim = std::stoll(value);
    else if (key == "dim_v")
      o.dim_v = std::stoll(value);
    else if (key == "left")
      o.left = std::stoll(value);
    else if (key == "gap")
      o.gap = std::stoll(value);
    else if (key == "nan")
      o.nan = std::stoll(value);
    else if (key == "softcap")
      o.softcap = std::stod(value);
    else if (key == "half")
      o.half = true;
    else if (key == "full")
      o.full = true;
    else if (key == "split")
      o.split = true;
    else
      std::fprintf(stderr, "unknown field %s\n", key.c_str()), std::exit(2);
  }
  if (o.kv == 0) o.kv = o.heads;
  if (o.dim_v == 0) o.dim_v = o.dim;
  return o;
}

__device__ float normal(std::uint64_t x) {
  x = (x + 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull, x ^= x >> 31, x *= 0x94d049bb133111ebull, x ^= x >> 29;
  const float u = (static_cast<float>(x >> 40) + 0.5f) * 0x1p-24f, v = static_cast<float>(x & 0xffffff) * 0x1p-24f;
  return sqrtf(-2 * logf(u)) * cospif(2 * v);
}

__global__ void fill_normal(std::uint16_t* data, std::int64_t count, std::uint64_t seed, bool half) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const float x = normal(static_cast<std::uint64_t>(i) + (seed << 40));
    data[i] = half ? to_float16(x).bits : to_bfloat16(x).bits;
  }
}

template <class T>
T* device_array(std::int64_t count) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, static_cast<std::size_t>(std::max<std::int64_t>(count, 1)) * sizeof(T)), "cudaMalloc");
  return static_cast<T*>(memory);
}
template <class T>
T* upload(const std::vector<T>& values) {
  T* const memory = device_array<T>(static_cast<std::int64_t>(values.size()));
  check(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "upload");
  return memory;
}
template <class T>
std::vector<T> download(const T* memory, std::int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  check(cudaMemcpy(values.data(), memory, values.size() * sizeof(T), cudaMemcpyDeviceToHost), "download");
  return values;
}

struct Tensor {
  std::int64_t tokens, heads, dim;
  bool half;
  std::uint16_t* data;
  std::vector<std::uint16_t> host;
  Tensor(std::int64_t t, std::int64_t h, std::int64_t d, bool is_half, int seed)
      : tokens(t), heads(h), dim(d), half(is_half), data(device_array<std::uint16_t>(t * h * d)) {
    if (seed == 0) {
      check(cudaMemset(data, 0xff, static_cast<std::size_t>(t * h * d) * 2), "memset");
    } else {
      fill_normal<<<1024, 256>>>(data, t * h * d, static_cast<std::uint64_t>(seed), half);
    }
  }
  void fetch() { host = download(data, tokens * heads * dim); }
  double at(std::int64_t t, std::int64_t h, std::int64_t i) const {
    const std::uint16_t bits = host[static_cast<std::size_t>((t * heads + h) * dim + i)];
    return static_cast<double>(half ? to_float(Float16{bits}) : to_float(BFloat16{bits}));
  }
  void poison(std::int64_t begin, std::int64_t end) {
    check(cudaMemset(data + begin * heads * dim, 0xff, static_cast<std::size_t>((end - begin) * heads * dim) * 2), "memset");
  }
  ConstView view() const { return {data, heads * dim, dim}; }
  View mutable_view() const { return {data, heads * dim, dim}; }
  hopper::TensorMap map(int rows = 64) const {
    return hopper::tensor_map(hopper::box_view(view(), half ? DType::float16 : DType::bfloat16, tokens, heads, dim), 64, rows);
  }
};

struct Problem {
  Options o;
  Shape shape{};
  std::vector<Segment> segments;
  double pairs = 0;  // of one head, as they count for flops
  std::int64_t tokens = 0;

  explicit Problem(const Options& options) : o(options) {
    for (const std::int64_t n : o.lengths) {
      segments.push_back({tokens, tokens + n, tokens, tokens + n, 0, 0, o.left, o.full ? std::int64_t{-1} : 0});
      const auto x = static_cast<double>(n);
      pairs += o.left >= 0 ? static_cast<double>(visible_pairs(segments.back())) : o.full ? x * x : x * x / 2;
      tokens += n + o.gap;
    }
    shape = {tokens, tokens, o.heads, o.kv, o.dim, o.dim_v, o.half ? DType::float16 : DType::bfloat16};
  }
  double flops() const {
    return 2 * (3.0 * static_cast<double>(o.dim) + 2.0 * static_cast<double>(o.dim_v)) * pairs * static_cast<double>(o.heads);
  }
};

// A sum, the size of what was added, and the part of it that float32 may blur.
struct Sums {
  std::vector<double> value, mass, blur;
  explicit Sums(std::int64_t n) : value(static_cast<std::size_t>(n)), mass(value), blur(value) {}
  void add(std::int64_t i, double x, double size) {
    const auto at = static_cast<std::size_t>(i);
    value[at] += x, mass[at] += std::abs(x), blur[at] += size;
  }
  double worst(const Tensor& actual, std::int64_t row, std::int64_t head, double unit) const {
    double result = 0;
    for (std::size_t i = 0; i < value.size(); ++i) {
      const double error = std::abs(actual.at(row, head, static_cast<std::int64_t>(i)) - value[i]);
      const double bound = unit * (mass[i] + std::abs(value[i])) + 0x1p-21 * blur[i] + 1e-6;
      result = std::isnan(error) ? INFINITY : std::max(result, error / bound);
    }
    return result;
  }
};

struct Run {
  const Problem& p;
  Tensor q, k, v, dout, dq, dk, dv;
  std::vector<float> lse, delta;

  double pair(std::int64_t row, std::int64_t key, std::int64_t head, double& ds, double& size) const {
    const std::int64_t head_kv = head / (p.o.heads / p.o.kv), at = head * p.tokens + row;
    double s = 0, dp = 0, mass = 0, dp_mass = 0;
    for (std::int64_t i = 0; i < p.o.dim; ++i) {
      const double x = q.at(row, head, i) * k.at(key, head_kv, i);
      s += x, mass += std::abs(x);
    }
    for (std::int64_t i = 0; i < p.o.dim_v; ++i) {
      const double x = dout.at(row, head, i) * v.at(key, head_kv, i);
      dp += x, dp_mass += std::abs(x);
    }
    const double scale = 1 / std::sqrt(static_cast<double>(p.o.dim)),
                 d = static_cast<double>(delta[static_cast<std::size_t>(at)]);
    s *= scale;
    double slope = 1;
    if (p.o.softcap > 0) s = p.o.softcap * std::tanh(s / p.o.softcap), slope = 1 - s * s / p.o.softcap / p.o.softcap;
    const double weight = std::exp(s - static_cast<double>(lse[static_cast<std::size_t>(at)]));
    ds = weight * slope * (dp - d) * scale;
    size = weight * scale * (dp_mass + std::abs(d)) * (8 + mass * scale);
    return weight;
  }

  // The worst error of dk and dv of a key, or of dq of a row, as a part of its bound.
  double check_key(std::int64_t key, std::int64_t head_kv) const {
    Sums dk_sum(p.o.dim), dv_sum(p.o.dim_v);
    const std::int64_t share = p.o.heads / p.o.kv;
    for (const Segment& segment : p.segments) {
      if (key < segment.k_begin || key >= segment.k_end) continue;
      const RowRange rows = visible_queries(segment, key);
      for (std::int64_t head = head_kv * share; head < (head_kv + 1) * share; ++head)
        for (std::int64_t row = rows.begin; row < rows.end; ++row) {
          double ds = 0, size = 0;
          const double weight = pair(row, key, head, ds, size);
          for (std::int64_t i = 0; i < p.o.dim; ++i)
            dk_sum.add(i, ds * q.at(row, head, i), size * std::abs(q.at(row, head, i)));
          for (std::int64_t i = 0; i < p.o.dim_v; ++i)
            dv_sum.add(i, weight * dout.at(row, head, i), 20 * weight * std::abs(dout.at(row, head, i)));
        }
    }
    const double unit = p.o.half ? 0x1p-11 : 0x1p-8;
    return std::max(dk_sum.worst(dk, key, head_kv, unit), dv_sum.worst(dv, key, head_kv, unit));
  }
  double check_row(std::int64_t row, std::int64_t head) const {
    Sums sum(p.o.dim);
    for (const Segment& segment : p.segments) {
      if (row < segment.q_begin || row >= segment.q_end) continue;
      const RowRange keys = visible_keys(segment, row);
      for (std::int64_t key = keys.begin; key < keys.end; ++key) {
        double ds = 0, size = 0;
        pair(row, key, head, ds, size);
        const std::int64_t head_kv = head / (p.o.heads / p.o.kv);
        for (std::int64_t i = 0; i < p.o.dim; ++i)
          sum.add(i, ds * k.at(key, head_kv, i), size * std::abs(k.at(key, head_kv, i)));
      }
    }
    return sum.worst(dq, row, head, p.o.half ? 0x1p-11 : 0x1p-8);
  }
};

// Keeps the stream busy while the host queues what is timed.
__global__ void occupy(std::uint64_t nanoseconds) {
  std::uint64_t begin, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
  do asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  while (now - begin < nanoseconds);
}

float milliseconds(cudaEvent_t from, cudaEvent_t to) {
  float value = 0;
  check(cudaEventElapsedTime(&value, from, to), "events");
  return value;
}

void run_case(const std::string& text, bool only_check) {
  const Problem p(parse(text));
  const auto& o = p.o;
  Run r{p,
        Tensor(p.tokens, o.heads, o.dim, o.half, 1),
        Tensor(p.tokens, o.kv, o.dim, o.half, 2),
        Tensor(p.tokens, o.kv, o.dim_v, o.half, 3),
        Tensor(p.tokens, o.heads, o.dim_v, o.half, 4),
        Tensor(p.tokens, o.heads, o.dim, o.half, 0),
        Tensor(p.tokens, o.kv, o.dim, o.half, 0),
        Tensor(p.tokens, o.kv, o.dim_v, o.half, 0),
        {},
        {}};
  std::mt19937 random(5);
  std::normal_distribution<float> gauss;
  r.lse.assign(static_cast<std::size_t>(o.heads * p.tokens), -INFINITY), r.delta.assign(r.lse.size(), 0.0f);
  for (const Segment& segment : p.segments) {
    if (o.gap > 0)
      for (Tensor* t : {&r.q, &r.k, &r.v, &r.dout}) t->poison(segment.q_end, segment.q_end + o.gap);
    for (std::int64_t row = segment.q_begin; row < segment.q_end; ++row) {
      const RowRange keys = visible_keys(segment, row);
      for (std::int64_t h = 0; h < o.heads; ++h) {
        r.lse[static_cast<std::size_t>(h * p.tokens + row)] = std::log(static_cast<float>(keys.end - keys.begin)) + 0.5f;
        r.delta[static_cast<std::size_t>(h * p.tokens + row)] = 0.3f * gauss(random);
      }
    }
  }
  const Segment of_nan = o.nan < 0 ? Segment{} : p.segments.at(static_cast<std::size_t>(o.nan));
  for (Tensor* t : {&r.q, &r.k, &r.v, &r.dout}) t->poison(of_nan.q_begin, of_nan.q_end);
  for (std::int64_t row = of_nan.q_begin; row < of_nan.q_end; ++row)
    for (std::int64_t h = 0; h < o.heads; ++h)
      r.lse[static_cast<std::size_t>(h * p.tokens + row)] = r.delta[static_cast<std::size_t>(h * p.tokens + row)] = NAN;
  const hopper::BackwardTile bucket = hopper::backward_tile(p.shape);
  const std::int64_t sum_count = p.tokens * o.heads * bucket.dim;
  float* const sums = device_array<float>(sum_count);
  BackwardParams params{};
  params.shape = p.shape, params.score = {1 / std::sqrt(static_cast<double>(o.dim)), o.softcap};
  params.segments = upload(p.segments), params.segment_count = static_cast<std::int64_t>(p.segments.size());
  params.q = r.q.view(), params.k = r.k.view(), params.v = r.v.view(), params.dout = r.dout.view();
  params.lse = upload(r.lse), params.delta = upload(r.delta);
  params.dq = r.dq.mutable_view(), params.dk = r.dk.mutable_view(), params.dv = r.dv.mutable_view();
  const ListRequest request{params.segments, params.segment_count, p.shape, o.split, true};
  char* const list_memory = device_array<char>(tile_list_bytes(request));
  TileLists lists{};
  const hopper::BackwardMaps maps{
      r.q.map(), r.k.map(), r.v.map(), r.dout.map(),
      hopper::tensor_map({sums, DType::float32, bucket.dim, o.heads, p.tokens, bucket.dim, o.heads * bucket.dim}, 32, 64)};

  const hopper::SplitTile split = hopper::split_tile(p.shape);
  const auto split_maps = [&](hopper::SplitBoxes rows) {
    return hopper::SplitMaps{r.q.map(rows.queries), r.k.map(rows.keys), r.v.map(rows.keys), r.dout.map(rows.queries)};
  };
  const hopper::SplitMaps keys_maps = split_maps(split_keys_boxes(split)),
                          queries_maps = split_maps(split_queries_boxes(split));

  BackwardParams ahead = params;  // D of another out goes where nobody reads it
  ahead.out = r.dq.view(), ahead.fill_delta = device_array<float>(o.heads * p.tokens);

  cudaEvent_t events[4];
  for (cudaEvent_t& event : events) check(cudaEventCreate(&event), "event");
  std::vector<float> kernel, whole, before, after;
  const int repeats = only_check ? 1 : 26;
  for (int i = 0; i < repeats; ++i) {
    const bool parts = i % 2 == 0;  // or all in one go
    occupy<<<1, 1>>>(200000);
    check(cudaEventRecord(events[0]), "record");
    lists = build_tile_lists(request, list_memory, nullptr);
    if (!o.split) hopper::prepare(ahead, sums, nullptr, true, nullptr);
    if (parts) check(cudaEventRecord(events[1]), "record");
    if (o.split) {
      hopper::split_key_gradients(params, lists.keys, lists.counters, keys_maps, nullptr);
    } else {
      hopper::backward(params, lists.keys, lists.counters, maps, nullptr);
    }
    if (parts) check(cudaEventRecord(events[2]), "record");
    if (o.split) {
      hopper::split_query_gradients(params, lists.queries, lists.counters + 1, queries_maps, nullptr);
    } else {
      hopper::finish_dq(params, sums, nullptr);
    }
    check(cudaEventRecord(events[3]), "record");
    check(cudaDeviceSynchronize(), "hopper backward");
    if (i < 6) continue;
    if (!parts) {
      whole.push_back(milliseconds(events[0], events[3]));
      continue;
    }
    before.push_back(milliseconds(events[0], events[1])), kernel.push_back(milliseconds(events[1], events[2]));
    after.push_back(milliseconds(events[2], events[3]));
  }
  for (Tensor* t : {&r.q, &r.k, &r.v, &r.dout, &r.dq, &r.dk, &r.dv}) t->fetch();
  double worst = 0;
  std::string where;
  const auto note = [&](double error, const char* what, std::int64_t row, std::int64_t head) {
    if (error <= worst) return;
    worst = error, where = std::string(what) + " of row " + std::to_string(row) + " head " + std::to_string(head);
  };
  const std::int64_t most = p.tokens <= 1200 ? p.tokens : std::max<std::int64_t>(6, 60000 / p.tokens);
  for (std::int64_t i = 0; i < most; ++i) {
    const auto pick = [&](std::int64_t n) { return static_cast<std::int64_t>(random() % static_cast<unsigned>(n)); };
    const auto any = [&] { return most == p.tokens ? i : pick(p.tokens); };
    const auto is_nan = [&](std::int64_t at) { return of_nan.q_begin <= at && at < of_nan.q_end; };
    const std::int64_t row = any(), head = pick(o.heads), key = any(), head_kv = pick(o.kv);
    if (!is_nan(row)) note(r.check_row(row, head), "dq", row, head);
    if (!is_nan(key)) note(r.check_key(key, head_kv), "dk or dv", key, head_kv);
  }
  std::int64_t not_finite = 0;  // beside the document of NaN
  for (const Tensor* t : {&r.dq, &r.dk, &r.dv})
    for (std::int64_t row = 0; row < p.tokens; ++row) {
      const std::uint16_t infinity = t->half ? 0x7c00 : 0x7f80, *const from = t->host.data() + row * t->heads * t->dim;
      const auto bad = std::count_if(from, from + t->heads * t->dim, [&](auto bits) { return (bits & infinity) == infinity; });
      not_finite += of_nan.q_begin <= row && row < of_nan.q_end ? t->heads * t->dim - bad : bad;
    }
  const bool good = worst <= 1 && not_finite == 0;
  std::printf("%s  %-52s error %.2f of its bound%s%s", good ? "ok  " : "BAD ", text.c_str(), worst, good ? "" : ", worst ",
              good ? "" : where.c_str());
  if (not_finite != 0) std::printf(", %lld finite or not where they should not be", static_cast<long long>(not_finite));
  if (!kernel.empty()) {
    for (std::vector<float>* times : {&kernel, &whole, &before, &after}) std::sort(times->begin(), times->end());
    const auto median = [](const std::vector<float>& times) { return static_cast<double>(times[times.size() / 2]); };
    const auto rate = [&](double ms) { return p.flops() / ms * 1e-9; };
    std::printf("  kernel %7.3f ms %5.0f TFLOP/s, best %5.0f; before %.3f, after %.3f ms; in all %.3f ms %5.0f; tiles %d",
                median(kernel), rate(median(kernel)), rate(static_cast<double>(kernel[0])), median(before), median(after),
                median(whole), rate(median(whole)), download(lists.keys.count, 1)[0]);
  }
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  bool only_check = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--check") == 0) {
      only_check = true;
      continue;
    }
    try {
      run_case(argv[i], only_check);
    } catch (const std::exception& error) {
      std::printf("BAD   %s: %s\n", argv[i], error.what());
      return 1;
    }
  }
  return 0;
}
