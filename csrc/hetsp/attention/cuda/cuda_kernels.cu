// cuda_kernels.h: chooses a family for a call and lays out its workspace.
#include "hetsp/attention/cuda/carving.h"
#include "hetsp/attention/cuda/chain.h"
#include "hetsp/attention/cuda/hopper/backward.h"
#include "hetsp/attention/cuda/hopper/backward_split.h"
#include "hetsp/attention/cuda/hopper/forward.h"
#include "hetsp/attention/cuda/hopper/forward_chain.h"
#include "hetsp/attention/cuda/hopper/tensor_map.h"
#include "hetsp/attention/cuda/launch.cuh"
#include "hetsp/attention/cuda/mma/backward.h"
#include "hetsp/attention/cuda/mma/forward.h"
#include "hetsp/attention/cuda/mma/forward_chain.h"
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
ListRequest lists_of(const ForwardParams& p, Family family) {
  return {p.segments, p.segment_count, p.shape, true, p.lists != nullptr, family == Family::hopper};
}
ListRequest lists_of(const BackwardParams& p, Family family) {
  const bool both = family == Family::mma || hopper_backward_is_split(p) || p.lists != nullptr;
  return {p.segments, p.segment_count, p.shape, both, true, family == Family::hopper};
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

// Parts of the workspace of a chain.
struct ChainSpace {
  Segment* cut;        // [pieces][segments]
  char* between;       // acc [total_q, heads, head_dim_v], where out is rounded
  std::uint64_t* done;  // [items of a link]
  char* index;         // scalar
  Workspace parts;     // of the others
};

std::int64_t most_items(const ForwardParams& call) {
  return most_tiles(call.shape.total_q, call.segment_count) * call.shape.heads;
}

ChainSpace lay_out_chain(const PiecesParams& params, Family family, Carving& memory) {
  const ForwardParams& call = params.call;
  ChainSpace space{};
  space.cut = memory.take<Segment>(call.segment_count * params.count);
  const std::int64_t acc_bytes = call.shape.dtype == DType::float64 ? 8 : 4;
  if (!call.out_is_acc)
    space.between = memory.take<char>(call.shape.total_q * call.shape.heads * call.shape.head_dim_v * acc_bytes);
  if (family == Family::scalar) {
    space.index = memory.take<char>(scalar_workspace_bytes(call.shape));
  } else {
    space.done = memory.take<std::uint64_t>(most_items(call));
    space.parts = lay_out(call, family, memory);
  }
  return space;
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

hopper::ChainMaps chain_maps(const PiecesParams& params) {
  const Shape& s = params.call.shape;
  const int keys = hopper::forward_tile(s).keys;
  hopper::ChainMaps maps{};
  maps.q = map(params.call.q, s.dtype, s.total_q, s.heads, s.head_dim, static_cast<int>(tile_rows));
  for (int i = 0; i < params.count; ++i) {
    const KeyPiece& piece = params.pieces[i];
    if (piece.rows == 0) continue;
    maps.k[i] = map(piece.k, s.dtype, piece.rows, s.heads_kv, s.head_dim, keys);
    maps.v[i] = map(piece.v, s.dtype, piece.rows, s.heads_kv, s.head_dim_v, keys);
  }
  return maps;
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
LaunchPlan plan(const PiecesParams& params) {
  const Family family = select_family(params, current_capability(), preference());
  Carving size(nullptr);
  (void)lay_out_chain(params, family, size);
  return {family, size.bytes()};
}
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

void forward(const PiecesParams& params, Family family, void* workspace, void* stream) {
  const ForwardParams& call = params.call;
  Carving memory(workspace);
  const ChainSpace space = lay_out_chain(params, family, memory);
  View kept{space.between, call.shape.heads * call.shape.head_dim_v, call.shape.head_dim_v};
  if (call.out_is_acc) kept = call.out;
  clear(params.late, sizeof(std::int32_t), stream);
  launch_cut(params, space.cut, stream);
  if (family == Family::scalar) {
    scalar_forward_chain(params, chain_of(params, space.cut, kept, nullptr), space.index, stream);
    return launch_poison(params, stream);
  }
  clear(space.done, most_items(call) * static_cast<std::int64_t>(sizeof(std::uint64_t)), stream);
  const TileLists lists = lists_for(call, family, space.parts, stream);
  if (family == Family::mma) {
    clear(space.parts.scratch, mma::zeroed_words * sizeof(std::int32_t), stream);
    const Chain chain = chain_of(params, space.cut, kept, space.done);
    mma::forward_chain(chain, lists.queries, most_items(call), space.parts.scratch, stream);
    return launch_poison(params, stream);
  }
  launch_begin(params, kept, stream);
  hopper::forward_chain(call, even_chain_of(params, space.cut, kept, space.done), lists.queries, lists.counters,
                        chain_maps(params), stream);
  launch_end(params, kept, stream);
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
