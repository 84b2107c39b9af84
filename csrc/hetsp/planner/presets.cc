#include "hetsp/planner/presets.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "hetsp/base/error.h"
#include "hetsp/planner/workload.h"

namespace hetsp::planner {

namespace {

constexpr std::int64_t kKilo = 1024;
constexpr double kMebi = 1024.0 * 1024.0;

// FlexSP (arXiv 2412.01523), as its release profiles it on A100-40G, 8 a node: seconds = milliseconds below / 1000.
struct FlexSp {
  const char* name;
  double activation_mb;      // per token, selective recomputation inside
  double a1, a2, b1;         // ms per token^2, per token, per micro-batch
  double all_to_all_mb;      // A, per token: 16 layers hidden / 2^20, 8 all-to-alls of 2-byte elements a layer
  double billions[3];        // 2^30 parameters at contexts of 4K, 192K, 384K
};

constexpr FlexSp kFlexSp[] = {
    {"7b", 4.480441895, 5.128e-6, 0.1839576, 629.3563, 2.0, {6.51, 7.1174469, 7.8498688}},
    {"13b", 4.220439453, 9.2852e-6, 0.3060189, 1132.5632, 3.125, {12.3568, 13.1160545, 14.0315819}},
    {"30b", 3.417381836, 15.4262e-6, 0.8035742, 2789.3644, 6.09375, {30.538, 31.5251389, 32.7153244}},
};

// GB/s of an all-to-all over d ranks: measured up to 64 by FlexSP (two InfiniBand cards a node), assumed above.
constexpr std::pair<int, double> kAllToAll[] = {{2, 119.54}, {4, 104.07}, {8, 96.5},  {16, 10.33}, {32, 5.94},
                                                {64, 4.87},  {128, 4.5},  {256, 4.3}, {512, 4.2},  {1024, 4.15}};

// Linear between the points, but 9 to 15 ranks, which leave the node without filling a second one, reach 1.3 times the 16's.
double all_to_all_bandwidth(int degree) {
  if (degree > 8 && degree < 16) return 1.3 * 10.33;
  std::size_t high = 0;
  while (kAllToAll[high].first < degree) ++high;
  if (kAllToAll[high].first == degree) return kAllToAll[high].second;
  const auto [from, slow] = kAllToAll[high - 1];
  const auto [to, fast] = kAllToAll[high];
  return slow + (fast - slow) * (degree - from) / (to - from);
}

Preset flexsp(const FlexSp& model) {
  CostModel cost{
      .seconds_per_pair = model.a1 / 1e3, .seconds_per_token = model.a2 / 1e3, .micro_batch_seconds = model.b1 / 1e3};
  // MB per token over GB/s is milliseconds. Every degree is a point: the bandwidth is what is linear, not its inverse.
  for (int degree = 2; degree <= 1024; ++degree)
    cost.links.push_back({degree, model.all_to_all_mb / all_to_all_bandwidth(degree) / 1e3});
  // 30 of 40 GB are usable. 16 bytes of state a parameter: 16 * 1024 MB per 2^30 parameters.
  const double billion = 1024.0 * kMebi;
  return {
      .name = std::string("flexsp-") + model.name,
      .description = std::string("FlexSP's GPT-") + model.name + " on A100-40G, Ulysses and ZeRO-3, as its release measured it",
      .cost = std::move(cost),
      .ranks_per_node = 8,
      .memory = {.bytes = 30.0 * 1024.0 * kMebi,
                 .sharded_bytes_per_parameter = 16.0,
                 .activation_bytes_per_token = model.activation_mb * kMebi,
                 .parameters = {{4 * kKilo, model.billions[0] * billion},
                                {192 * kKilo, model.billions[1] * billion},
                                {384 * kKilo, model.billions[2] * billion}}},
      .synchronisation = Synchronisation::layer,  // ZeRO-3 (section 6.1)
      .overlaps = false,
      .squared_pairs = true};
}

// Eight GPUs of a node and its NICs. A single flow reaches 96 % of a NIC's line rate (Zeppelin, arXiv 2509.21841: 52.4 MB in
// 2.18 ms over 200 Gb/s); NVLink is taken at 75 % of its nominal rate, and start-ups at 10 and 20 microseconds: estimates.
Network network(double nvlink_gigabytes, int nics, double nic_gigabits) {
  return {.intra_node = {0.75e9 * nvlink_gigabytes, 10e-6},
          .inter_node = {0.96e9 * nic_gigabits / 8.0, 20e-6},
          .nics_per_node = nics};
}

// Sustained over forward and backward, bfloat16, estimates: FlashAttention-2 reaches about 60 % of an A100's 312 TFLOP/s
// (arXiv 2307.08691, section 4.1), matrix products 72 %; of a Hopper's 989 TFLOP/s we take 30 % and 40 %.
constexpr ComputeRates kAmpere{190e12, 225e12}, kHopper{300e12, 400e12};

// How the state of a model lies on the ranks. ZeRO-3 shards 2-byte weights and gradients and 12 bytes of Adam (arXiv
// 1910.02054); Megatron-LM's distributed optimizer, a ZeRO-1, keeps 2-byte weights and 4-byte gradients on every rank.
enum class State { zero3, zero1 };

Preset on_cluster(std::string name, std::string description, const ModelShape& shape, const ComputeRates& rates,
                  const Network& links, double gigabytes, bool recompute, State state) {
  // A tenth of the memory is left to the allocator and to buffers. The embedding table is a second matrix of the output
  // projection's size.
  const double parameters = weights(shape) + static_cast<double>(shape.hidden) * static_cast<double>(shape.vocabulary);
  return {.name = std::move(name),
          .description = std::move(description),
          .cost = cost_model_on_network(shape, rates, links, 8, recompute),
          .ranks_per_node = 8,
          .memory = {.bytes = 0.9e9 * gigabytes,
                     .sharded_bytes_per_parameter = state == State::zero3 ? 16.0 : 12.0,
                     .replicated_bytes_per_parameter = state == State::zero3 ? 0.0 : 6.0,
                     .activation_bytes_per_token = activation_bytes_per_token(shape, recompute),
                     .parameters = {{0, parameters}}},
          .synchronisation = state == State::zero3 ? Synchronisation::layer : Synchronisation::step};
}

ModelShape llama(std::int32_t layers, std::int64_t hidden, std::int64_t intermediate, std::int32_t heads,
                 std::int32_t kv_heads) {
  return {.layers = layers,
          .hidden = hidden,
          .intermediate = intermediate,
          .heads = heads,
          .kv_heads = kv_heads,
          .head_dim = static_cast<std::int32_t>(hidden / heads),
          .vocabulary = 32000};
}

// ByteScale (arXiv 2502.21231), 7B, GPUs undisclosed. Per layer and forward, L in K tokens: attention and projections
// 0.00960 L^2 + 0.136 L + 0.10 ms, MLP 0.229 L ms, fitted to its table of 4K to 128K (within 1.4 % and 4 %). Backward counts
// 2.5 times the quadratic term and twice the rest. Links: attention of a 312K sequence takes 110 ms on 39 ranks and 405 ms
// on 256; taken as forward rings, a hop has 1.35 ms of start-up and 21 GB/s on 8 KV heads of 128 (2 points, 2 unknowns).
Preset bytescale() {
  constexpr double layers = 32.0, kilo = 1024.0, ms = 1e-3;
  constexpr double kv_bytes = 2.0 * 8 * 128 * 2;  // of a token and layer
  constexpr double start = 1.35 * ms, bandwidth = 21e9;
  constexpr double hop = layers * 4.0 * kv_bytes / bandwidth;  // once forward; backward once, and float gradients
  return {.name = "bytescale-7b",
          .description = "ByteScale's LLaMA-7B, 8K tokens a GPU: curves and links fitted to its published measurements",
          .cost = {.seconds_per_pair = layers * 3.5 * 0.00960 * ms / (kilo * kilo),
                   .seconds_per_token = layers * 3.0 * (0.136 + 0.229) * ms / kilo,
                   .links = {{2, hop}, {3, 2.0 * hop}},
                   .hop_seconds = layers * 2.0 * start,
                   .micro_batch_seconds = layers * 3.0 * 0.10 * ms},
          .ranks_per_node = 8,
          .memory = {.bytes = 8192.0, .activation_bytes_per_token = 1.0},  // published in tokens, not bytes
          .synchronisation = Synchronisation::step,  // replicated parameters, ZeRO-1 over all ranks (section 3.1)
          // Offloading half of a 64K sequence is the most that costs it nothing (5.08 s; 5.38 at 0.6): so many tokens'
          // activations of a layer leave in a layer's forward of that length.
          .host = {.layers = 32, .tokens_per_second = 0.5 * 65536 / (ms * (0.00960 * 64 * 64 + (0.136 + 0.229) * 64))},
          .executable = {"whole", "ring", "ulysses", "gather"},
          .squared_pairs = true};
}

std::vector<Preset> make_presets() {
  std::vector<Preset> all;
  for (const auto& model : kFlexSp) all.push_back(flexsp(model));
  const Network h100 = network(450, 8, 400);
  // Sizes: arXiv 2302.13971 table 2, arXiv 2307.09288 table 1; 3B is OpenLLaMA's.
  const ModelShape llama_3b = llama(26, 3200, 8640, 32, 32), llama_7b = llama(32, 4096, 11008, 32, 32);
  all.push_back(on_cluster("llama-7b", "Llama 2 7B on H100-80G, 8 a node with 8 x 400 Gb/s", llama_7b, kHopper, h100, 80, false,
                           State::zero3));
  all.push_back(on_cluster("llama-13b", "Llama 2 13B on H100-80G, 8 a node with 8 x 400 Gb/s", llama(40, 5120, 13824, 40, 40),
                           kHopper, h100, 80, false, State::zero3));
  all.push_back(on_cluster("llama-70b", "Llama 2 70B on H100-80G, 8 a node with 8 x 400 Gb/s, layers recomputed",
                           llama(80, 8192, 28672, 64, 8), kHopper, h100, 80, true, State::zero3));
  all.push_back(bytescale());
  // A800 and H800 have NVLink of 200 GB/s a direction, H200 of 450. How Zeppelin keeps its state is not published: we assume
  // data parallelism as Megatron-LM has it.
  const struct {
    const char *letter, *what;
    ComputeRates rates;
    Network links;
    double gigabytes;
  } clusters[] = {{"a", "8 A800 with 4 x 200 Gb/s a node", kAmpere, network(200, 4, 200), 80},
                  {"b", "8 H800 with 8 x 200 Gb/s a node", kHopper, network(200, 8, 200), 80},
                  {"c", "8 H200 with 8 x 400 Gb/s a node", kHopper, network(450, 8, 400), 141}};
  for (const auto& c : clusters) {
    for (const auto& [size, shape] : {std::pair{"3b", &llama_3b}, std::pair{"7b", &llama_7b}})
      all.push_back(on_cluster(
          std::string("zeppelin-") + c.letter + "-" + size,
          std::string("Zeppelin's cluster ") + static_cast<char>(c.letter[0] - 'a' + 'A') + ", " + c.what + ", LLaMA " + size,
          *shape, c.rates, c.links, c.gigabytes, false, State::zero1));
  }
  return all;
}

}  // namespace

std::int64_t RankMemory::tokens(std::int32_t ranks, std::int64_t context) const {
  double count = 0.0;
  if (parameters.size() == 1) count = parameters.front().count;
  if (parameters.size() > 1) {
    std::size_t high = 1;
    while (high + 1 < parameters.size() && parameters[high].context < context) ++high;
    const auto& from = parameters[high - 1];
    const auto& to = parameters[high];
    count = from.count + (to.count - from.count) * static_cast<double>(context - from.context) /
                             static_cast<double>(to.context - from.context);
  }
  const double room = bytes - (sharded_bytes_per_parameter / ranks + replicated_bytes_per_parameter) * count;
  return room <= 0.0 ? 0 : static_cast<std::int64_t>(std::floor(room / activation_bytes_per_token));
}

Cluster Preset::cluster(std::int32_t ranks, std::int64_t max_length) const {
  require(ranks >= 1, "preset ", name, ": ranks is ", ranks, ", must be at least 1");
  require(max_length >= 1, "preset ", name, ": max_length is ", max_length, ", must be at least 1");
  const Cluster result{ranks, ranks_per_node, memory.tokens(ranks, max_length), host};
  if (result.tokens_per_rank < 1)
    throw PlanInfeasible(concat("preset ", name, ": the model's state fills the memory of ", ranks, " ranks; take more"));
  return result;
}

std::vector<Sequence> Preset::workload(std::span<const std::int64_t> lengths) const {
  auto sequences = make_workload(lengths);
  if (squared_pairs) {
    for (auto& sequence : sequences) {
      require(sequence.tokens < (std::int64_t{1} << 31), "preset ", name, ": a sequence has ", sequence.tokens,
              " tokens, must be below 2^31");
      sequence.visible_pairs = sequence.tokens * sequence.tokens;
    }
  }
  return sequences;
}

const std::vector<Preset>& presets() {
  static const std::vector<Preset> all = make_presets();
  return all;
}

const Preset& preset(std::string_view name) {
  std::string allowed;
  for (const auto& one : presets()) {
    if (one.name == name) return one;
    allowed += (allowed.empty() ? "" : ", ") + one.name;
  }
  throw InvalidArgument(concat("preset \"", name, "\" is unknown; allowed: ", allowed));
}

}  // namespace hetsp::planner
