#include "hetsp/attention/cuda/selection.h"

#include <atomic>
#include <string>

#include "hetsp/attention/cuda/hopper/box_view.h"
#include "hetsp/attention/cuda/tile_list.h"
#include "hetsp/base/error.h"

namespace hetsp::attention::cuda {

namespace {

constexpr int kAmpere = 80, kHopper = 90;  // compute capabilities

bool is_16_bit(DType dtype) { return dtype == DType::bfloat16 || dtype == DType::float16; }

// What the tensor cores of a family want, whatever the direction.
Refusal tensor_core_refusal(const Shape& shape) {
  if (!is_16_bit(shape.dtype)) return {"q", "its type is not bfloat16 or float16"};
  if (shape.head_dim > max_head_dim) return {"q", "its head_dim is beyond 256"};
  if (shape.head_dim_v > max_head_dim) return {"v", "its head_dim is beyond 256"};
  return {};
}

// Rows are copied and written 16 bytes at a time.
Refusal hopper_refusal(const Shape& shape, int capability) {
  if (capability != kHopper) return {"", "the device is not of compute capability 9.0"};
  if (const Refusal no = tensor_core_refusal(shape)) return no;
  if (shape.head_dim % 8 != 0) return {"q", "its head_dim is no multiple of 8"};
  if (shape.head_dim_v % 8 != 0) return {"v", "its head_dim is no multiple of 8"};
  return {};
}

Refusal box_refusal_of(const char* what, const ConstView& view, DType dtype, std::int64_t tokens, std::int64_t heads,
                       std::int64_t dim) {
  return {what, hopper::box_refusal(hopper::box_view(view, dtype, tokens, heads, dim))};
}

template <class Params>
Refusal operand_refusal(const Params& params) {
  const Shape& s = params.shape;
  if (const Refusal no = box_refusal_of("q", params.q, s.dtype, s.total_q, s.heads, s.head_dim)) return no;
  if (const Refusal no = box_refusal_of("k", params.k, s.dtype, s.total_k, s.heads_kv, s.head_dim)) return no;
  return box_refusal_of("v", params.v, s.dtype, s.total_k, s.heads_kv, s.head_dim_v);
}

// Every piece is read by the copy engine.
Refusal hopper_chain_refusal(const PiecesParams& params, int capability) {
  const Shape& s = params.call.shape;
  if (const Refusal no = hopper_refusal(s, capability)) return no;
  if (const Refusal no = box_refusal_of("q", params.call.q, s.dtype, s.total_q, s.heads, s.head_dim)) return no;
  for (int i = 0; i < params.count; ++i) {
    const KeyPiece& piece = params.pieces[i];
    if (piece.rows == 0) continue;
    Refusal no = box_refusal_of("k", piece.k, s.dtype, piece.rows, s.heads_kv, s.head_dim);
    if (!no) no = box_refusal_of("v", piece.v, s.dtype, piece.rows, s.heads_kv, s.head_dim_v);
    no.piece = i;
    if (no) return no;
  }
  return {};
}

Refusal portable_refusal(Family family, const Shape& shape, int capability) {
  if (family == Family::scalar) return {};
  return capability < kAmpere ? Refusal{"", "the device is older than compute capability 8.0"} : tensor_core_refusal(shape);
}

const Shape& shape_of(const ForwardParams& params) { return params.shape; }
const Shape& shape_of(const BackwardParams& params) { return params.shape; }
const Shape& shape_of(const PiecesParams& params) { return params.call.shape; }

// What is at fault, for a message: "k of piece 2: ".
std::string fault(const Refusal& no) {
  if (no.what[0] == '\0') return "";
  return no.piece < 0 ? concat(no.what, ": ") : concat(no.what, " of piece ", no.piece, ": ");
}

template <class Params>
Family select_of(const Params& params, int capability, Preference wish) {
  const Shape& shape = shape_of(params);
  require(shape.head_dim <= max_head_dim && shape.head_dim_v <= max_head_dim, "head_dim ", shape.head_dim, ", head_dim_v ",
          shape.head_dim_v, ": the CUDA kernels take at most ", max_head_dim);
  const Refusal no = refusal(wish.most, params, capability);
  if (!no) return wish.most;
  require(!wish.only, "the kernels \"", name(wish.most),
          "\" are set, and no others; they do not serve this call: ", no ? fault(no) : "", no ? no.why : "");
  return wish.most == Family::hopper && !refusal(Family::mma, params, capability) ? Family::mma : Family::scalar;
}

std::atomic<Preference> g_preference{Preference{}};

}  // namespace

const char* name(Family family) {
  switch (family) {
    case Family::scalar:
      return "scalar";
    case Family::mma:
      return "mma";
    case Family::hopper:
      return "hopper";
  }
  return "?";
}

Family family_of(std::string_view wanted) {
  for (const Family family : kAllFamilies)
    if (wanted == name(family)) return family;
  throw InvalidArgument(concat("CUDA kernels are \"", wanted, "\", must be scalar, mma or hopper"));
}

Refusal refusal(Family family, const ForwardParams& params, int capability) {
  if (family != Family::hopper) return portable_refusal(family, params.shape, capability);
  if (const Refusal no = hopper_refusal(params.shape, capability)) return no;
  return operand_refusal(params);
}

Refusal refusal(Family family, const PiecesParams& params, int capability) {
  const ForwardParams& call = params.call;
  if (family == Family::hopper) {
    if (const Refusal no = hopper_chain_refusal(params, capability)) return no;
  } else if (const Refusal no = portable_refusal(family, call.shape, capability)) {
    return no;
  }
  const std::int64_t items = most_tiles(call.shape.total_q, call.segment_count) * call.shape.heads;
  if (family != Family::scalar && items * params.count >= std::int64_t{1} << 31)
    return {"segments", "they make 2^31 items or more, of all pieces"};
  return {};
}

Refusal refusal(Family family, const BackwardParams& params, int capability) {
  const Shape& s = params.shape;
  if (family != Family::hopper) return portable_refusal(family, s, capability);
  if (const Refusal no = hopper_refusal(s, capability)) return no;
  if (params.out_is_acc && hopper_backward_is_split(params)) return {"dout", "its type is float32"};
  if (const Refusal no = operand_refusal(params)) return no;
  if (params.out_is_acc) return {};  // a rounded copy of dout is read
  return box_refusal_of("dout", params.dout, s.dtype, s.total_q, s.heads, s.head_dim_v);
}

Family best_family(int capability) {
  return capability == kHopper ? Family::hopper : capability >= kAmpere ? Family::mma : Family::scalar;
}

void prefer(Preference wish) { g_preference.store(wish); }
Preference preference() { return g_preference.load(); }

Family select_family(const ForwardParams& params, int capability, Preference wish) {
  return select_of(params, capability, wish);
}
Family select_family(const PiecesParams& params, int capability, Preference wish) {
  return select_of(params, capability, wish);
}
Family select_family(const BackwardParams& params, int capability, Preference wish) {
  return select_of(params, capability, wish);
}

}  // namespace hetsp::attention::cuda
