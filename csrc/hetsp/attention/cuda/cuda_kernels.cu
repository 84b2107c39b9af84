// cuda_kernels.h: chooses a family for a call and lays out its workspace.
#include "hetsp/attention/cuda/carving.h"
#include "hetsp/attention/cuda/hopper/backward.h"
#include "hetsp/attention/cuda/hopper/backward_split.h"
#include "hetsp/attention/cuda/hopper/forward.h"
#include "hetsp/attention/cuda/hopper/tensor_map.h"
#include "hetsp/attention/cuda/launch.cuh"
#include "hetsp/attention/cuda/mma/backward.h"
#include "hetsp/attention/cuda/mma/forward.h"
#include "hetsp/attention/cuda/mma/scratch.h"
#include "hetsp/attention/cuda/scalar/scalar.h"
#include "hetsp/attention/cuda/selection.h"
#include "hetsp/attention/cuda/tile_list.h"
#include "hetsp/attention/cuda_kernels.h"

namespace hetsp::attention::cuda {

namespace {

static_assert(hopper::backward_max_dim == hopper_backward_head_dim);

int current_capability() {
  int device = 0, major = 0, minor = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  return 10 * major + minor;
}

void clear(void* memory, std::int64_t bytes, void* stream) {
  check(cudaMemsetAsync(memory, 0, static_cast<std::size_t>(bytes), static_cast<cudaStream_t>(stream)),
        "varlen_attention, clear");
}

// The lists that a family walks, or all where they have been built for all calls.
ListRequest lists_of(const ForwardParams& p, Family) {
  return {p.segments, p.segment_count, p.shape, true, p.lists != nullptr};
}
ListRequest lists_of(const BackwardParams& p, Family family) {
  const bool both = family == Family::mma || hopper_backward_is_split(p) || p.lists != nullptr;
  return {p.segments, p.segment_count, p.shape, both, true};
}

// Parts of the workspace of the families that walk lists.
struct Workspace {
  char* lists;
  std::int32_t* counters;  // where the lists have none of their own: [list_counters]
  std::int32_t* scratch;  // mma: [mma::scratch_words]
  float* dq_sums;          // backward of hopper, where it is not split: [total_q, heads, backward_tile().dim]
  std::uint16_t* dout;     // the same, where dout is float32: [total_q, heads, head_dim_v] in 16 bits
};

void lay_out_hopper(const ForwardParams&, Carving&, Workspace&) {}
void lay_out_hopper(const BackwardParams& params, Carving& memory, Workspace& parts) {
  if (hopper_backward_is_split(params)) return;
  const std::int64_t pairs = params.shape.total_q * params.shape.heads;
  parts.dq_sums = memory.take<float>(pairs * hopper::backward_tile(params.shape).dim);
  if (params.out_is_acc) parts.dout = memory.take<std::uint16_t>(pairs * params.shape.head_dim_v);
}

template <class Params>
Workspace lay_out(const Params& params, Family family, Carving& memory) {
  Workspace parts{};
  if (params.lists == nullptr) {
    parts.lists = memory.take<char>(tile_list_bytes(lists_of(params, family)));
  } else {
    parts.counters = memory.take<std::int32_t>(list_counters);
  }
  if (family == Family::mma) parts.scratch = memory.take<std::int32_t>(mma::scratch_words);
  if (family == Family::hopper) lay_out_hopper(params, memory, parts);
  return parts;
}

template <class Params>
TileLists lists_for(const Params& params, Family family, const Workspace& parts, void* stream) {
  if (params.lists == nullptr) return build_tile_lists(lists_of(params, family), parts.lists, stream);
  TileLists lists = built_tile_lists(lists_of(params, family), params.lists);
  lists.counters = parts.counters;
  clear(lists.counters, list_counters * sizeof(std::int32_t), stream);
  return lists;
}

template <class Params>
LaunchPlan plan_of(const Params& params) {
  const Family family = select_family(params, current_capability(), preference());
  if (family == Family::scalar) return {family, scalar_workspace_bytes(params.shape)};
  Carving size(nullptr);
  (void)lay_out(params, family, size);
  return {family, size.bytes()};
}

// Boxes of `rows` tokens and 64 columns of a 16-bit tensor.
hopper::TensorMap map(const ConstView& view, DType dtype, std::int64_t tokens, std::int64_t heads, std::int64_t dim, int rows) {
  return hopper::tensor_map(hopper::box_view(view, dtype, tokens, heads, dim), 64, rows);
}

hopper::ForwardMaps forward_maps(const ForwardParams& params) {
  const Shape& s = params.shape;
  const int keys = hopper::forward_tile(s).keys;
  return {map(params.q, s.dtype, s.total_q, s.heads, s.head_dim, static_cast<int>(tile_rows)),
          map(params.k, s.dtype, s.total_k, s.heads_kv, s.head_dim, keys),
          map(params.v, s.dtype, s.total_k, s.heads_kv, s.head_dim_v, keys)};
}

hopper::BackwardMaps backward_maps(const BackwardParams& params, const Workspace& parts) {
  const Shape& s = params.shape;
  constexpr int rows = 64;
  const std::int64_t dim = hopper::backward_tile(s).dim;
  const ConstView rounded{parts.dout, s.heads * s.head_dim_v, s.head_dim_v};
  const hopper::BoxView sums{parts.dq_sums, DType::float32, dim, s.heads, s.total_q, dim, s.heads * dim};
  return {map(params.q, s.dtype, s.total_q, s.heads, s.head_dim, rows),
          map(params.k, s.dtype, s.total_k, s.heads_kv, s.head_dim, rows),
          map(params.v, s.dtype, s.total_k, s.heads_kv, s.head_dim_v, rows),
          map(params.out_is_acc ? rounded : params.dout, s.dtype, s.total_q, s.heads, s.head_dim_v, rows),
          hopper::tensor_map(sums, 32, rows)};
}

hopper::SplitMaps split_maps(const BackwardParams& params, hopper::SplitBoxes rows) {
  const Shape& s = params.shape;
  return {map(params.q, s.dtype, s.total_q, s.heads, s.head_dim, rows.queries),
          map(params.k, s.dtype, s.total_k, s.heads_kv, s.head_dim, rows.keys),
          map(params.v, s.dtype, s.total_k, s.heads_kv, s.head_dim_v, rows.keys),
          map(params.dout, s.dtype, s.total_q, s.heads, s.head_dim_v, rows.queries)};
}

void split_backward(const BackwardParams& params, const TileLists& lists, void* stream) {
  const hopper::SplitTile tile = hopper::split_tile(params.shape);
  hopper::split_key_gradients(params, lists.keys, lists.counters, split_maps(params, split_keys_boxes(tile)), stream);
  hopper::split_query_gradients(params, lists.queries, lists.counters + 1, split_maps(params, split_queries_boxes(tile)),
                                stream);
}

}  // namespace

LaunchPlan plan(const ForwardParams& params) { return plan_of(params); }
LaunchPlan plan(const BackwardParams& params) { return plan_of(params); }

void build_lists(const ListsParams& params, void* stream) {
  Shape shape{};
  shape.total_q = params.total_q, shape.total_k = params.total_k;
  const ListRequest request{params.segments, params.segment_count, shape, true, true};
  const std::int64_t room = lists_bytes(params.segment_count, params.total_q, params.total_k);
  invariant(tile_list_bytes(request) <= room, "work lists of ", tile_list_bytes(request), " bytes in ", room);
  (void)build_tile_lists(request, params.lists, stream);
}

void forward(const ForwardParams& params, Family family, void* workspace, void* stream) {
  if (family == Family::scalar) return scalar_forward(params, workspace, stream);
  Carving memory(workspace);
  const Workspace parts = lay_out(params, family, memory);
  const TileLists lists = lists_for(params, family, parts, stream);
  if (family == Family::hopper) return hopper::forward(params, lists.queries, lists.counters, forward_maps(params), stream);
  clear(parts.scratch, mma::zeroed_words * sizeof(std::int32_t), stream);
  mma::forward(params, lists.queries, parts.scratch, stream);
}

void backward(const BackwardParams& params, Family family, void* workspace, void* stream) {
  Carving memory(workspace);
  const Workspace parts = family == Family::scalar ? Workspace{} : lay_out(params, family, memory);
  TileLists lists{};
  if (family != Family::scalar) lists = lists_for(params, family, parts, stream);
  const bool split = hopper_backward_is_split(params);
  if (family == Family::hopper && !split) {
    hopper::prepare(params, parts.dq_sums, parts.dout, params.lists == nullptr, stream);
  } else if (params.fill_delta != nullptr) {
    delta(delta_params(params), stream);
  }
  if (params.sink != nullptr) sink_gradient(params, stream);
  if (family == Family::scalar) return scalar_backward(params, workspace, stream);
  if (family == Family::hopper && split) return split_backward(params, lists, stream);
  if (family == Family::hopper) {
    hopper::backward(params, lists.keys, lists.counters, backward_maps(params, parts), stream);
    return hopper::finish_dq(params, parts.dq_sums, stream);
  }
  clear(parts.scratch, mma::zeroed_words * sizeof(std::int32_t), stream);
  mma::backward(params, lists.queries, lists.keys, parts.scratch, stream);
}

}  // namespace hetsp::attention::cuda
