#include "hetsp/attention/cuda/selection.h"

#include <string>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp::attention;
using namespace hetsp::attention::cuda;

namespace {

constexpr int kAda = 89, kHopper = 90, kBlackwell = 100;
alignas(64) char memory[4096];

// 100 queries and 200 keys, contiguous.
ForwardParams forward_call(DType dtype = DType::bfloat16, std::int64_t dim = 128, std::int64_t dim_v = 128) {
  ForwardParams params{};
  params.shape = {100, 200, 4, 2, dim, dim_v, dtype};
  params.q = {memory, 4 * dim, dim};
  params.k = {memory, 2 * dim, dim};
  params.v = {memory, 2 * dim_v, dim_v};
  return params;
}

BackwardParams backward_call(DType dtype = DType::bfloat16, std::int64_t dim = 128, std::int64_t dim_v = 128) {
  const ForwardParams forward = forward_call(dtype, dim, dim_v);
  BackwardParams params{};
  params.shape = forward.shape;
  params.q = forward.q, params.k = forward.k, params.v = forward.v;
  params.out = params.dout = {memory, 4 * dim_v, dim_v};
  return params;
}

template <class Params>
Family chosen(const Params& params, int capability = kHopper, Preference wish = {}) {
  return select_family(params, capability, wish);
}

template <class Params>
bool refused(const Params& params, const std::string& what, const std::string& why) {
  const Refusal no = refusal(Family::hopper, params, kHopper);
  return no && what == no.what && std::string(no.why).find(why) != std::string::npos && chosen(params) == Family::mma;
}

}  // namespace

TEST(every_piece_of_the_keys_has_to_suit) {
  KeyPiece pieces[3];
  for (KeyPiece& piece : pieces) piece = {{memory, 128, 64}, {memory, 128, 64}, 50, nullptr, 0};
  PiecesParams params{};
  params.call = forward_call(DType::bfloat16, 64, 64), params.call.shape.total_k = 150, params.call.score = {0.1, 0};
  params.pieces = pieces, params.count = 3;
  const auto refused_by = [&](Family family, const std::string& what, const std::string& why, int piece) {
    const Refusal no = refusal(family, params, kHopper);
    return no && what == no.what && std::string(no.why).find(why) != std::string::npos && no.piece == piece;
  };
  CHECK(chosen(params) == Family::hopper);
  CHECK(chosen(params, 80) == Family::mma);
  pieces[2].v.token_stride = 129;
  CHECK(refused_by(Family::hopper, "v", "no multiple of 16 bytes", 2) && chosen(params) == Family::mma);
  CHECK_THROWS(hetsp::InvalidArgument, "v of piece 2: its stride from token to token is no multiple",
               chosen(params, kHopper, {Family::hopper, true}));
  pieces[2].rows = 0;  // nobody reads it
  CHECK(chosen(params) == Family::hopper);
  for (const std::int64_t dim : {72, 128, 192, 256}) {
    params.call.shape.head_dim = dim, params.call.shape.head_dim_v = dim == 192 ? 128 : dim;
    CHECK(chosen(params) == Family::hopper);
  }
  params.call.shape.head_dim = 68;
  CHECK(refused_by(Family::hopper, "q", "no multiple of 8", -1) && chosen(params) == Family::mma);
  params.call.shape.head_dim = params.call.shape.head_dim_v = 64;
  for (const Score score : {Score{0.1, 2}, {-0.1, 0}, {0.1, 0}}) {
    params.call.score = score;
    CHECK(chosen(params) == Family::hopper);
  }
  params.call.segment_count = std::int64_t{1} << 30;
  params.call.shape.total_q = std::int64_t{1} << 29;
  for (const Family family : {Family::hopper, Family::mma}) CHECK(refused_by(family, "segments", "2^31 items", -1));
  CHECK(chosen(params) == Family::scalar);
  params.call.shape.dtype = DType::float64, params.call.segment_count = 1, params.call.shape.total_q = 10;
  CHECK(chosen(params) == Family::scalar);
}

TEST(the_device_decides_first) {
  for (const DType dtype : {DType::bfloat16, DType::float16}) {
    CHECK(chosen(forward_call(dtype), kHopper) == Family::hopper);
    CHECK(chosen(backward_call(dtype), kHopper) == Family::hopper);
    for (const int other : {80, 86, kAda, kBlackwell, 120}) {  // instructions of sm_90a exist on 9.0 alone
      CHECK(chosen(forward_call(dtype), other) == Family::mma);
      CHECK(chosen(backward_call(dtype), other) == Family::mma);
    }
    CHECK(chosen(forward_call(dtype), 75) == Family::scalar);
  }
  CHECK(best_family(kHopper) == Family::hopper);
  CHECK(best_family(kBlackwell) == Family::mma);
  CHECK(best_family(70) == Family::scalar);
}

TEST(wide_types_are_scalar) {
  for (const DType dtype : {DType::float32, DType::float64}) {
    CHECK(chosen(forward_call(dtype)) == Family::scalar);
    CHECK(chosen(backward_call(dtype)) == Family::scalar);
  }
}

TEST(head_dimensions) {
  for (const std::int64_t dim : {8, 64, 72, 128, 192, 256}) {
    CHECK(chosen(forward_call(DType::bfloat16, dim, dim)) == Family::hopper);
    CHECK(chosen(backward_call(DType::bfloat16, dim, dim)) == Family::hopper);
  }
  CHECK(chosen(forward_call(DType::bfloat16, 192, 128)) == Family::hopper);
  CHECK(chosen(backward_call(DType::bfloat16, 192, 128)) == Family::hopper);
  CHECK(refused(backward_call(DType::bfloat16, 128, 132), "v", "multiple of 8"));
  CHECK(refused(forward_call(DType::bfloat16, 20, 64), "q", "multiple of 8"));
  CHECK(refused(forward_call(DType::bfloat16, 64, 17), "v", "multiple of 8"));
  CHECK_THROWS(hetsp::InvalidArgument, "head_dim 264, head_dim_v 64", chosen(forward_call(DType::bfloat16, 264, 64)));
  CHECK_THROWS(hetsp::InvalidArgument, "head_dim_v 300", chosen(backward_call(DType::float32, 64, 300)));
}

TEST(tensors_that_the_copy_engine_does_not_take) {
  ForwardParams forward = forward_call();
  forward.q.data = memory + 2;
  CHECK(refused(forward, "q", "address"));
  forward = forward_call();
  forward.k.token_stride = -256;
  CHECK(refused(forward, "k", "negative"));
  forward = forward_call();
  forward.v.head_stride = 129;
  CHECK(refused(forward, "v", "head to head"));
  forward = forward_call();
  forward.shape.total_k = 0;
  CHECK(refused(forward, "k", "empty"));
  BackwardParams backward = backward_call();
  backward.dout.token_stride = 513;
  CHECK(refused(backward, "dout", "token to token"));
  backward.out_is_acc = true;  // a float32 dout is copied first
  CHECK(!refusal(Family::hopper, backward, 90));
}

TEST(what_the_backward_on_hopper_leaves_to_others) {
  BackwardParams params = backward_call();
  params.deterministic = true;
  CHECK(chosen(params) == Family::hopper && hopper_backward_is_split(params));
  params.out_is_acc = true;
  CHECK(refused(params, "dout", "float32"));
  params = backward_call(DType::bfloat16, 192, 128);
  CHECK(chosen(params) == Family::hopper && hopper_backward_is_split(params));
  params.out_is_acc = true;
  CHECK(refused(params, "dout", "float32"));
  params = backward_call();
  params.out_is_acc = true;
  CHECK(chosen(params) == Family::hopper && !hopper_backward_is_split(params));
}

TEST(a_preference_is_an_upper_bound_or_the_only_choice) {
  CHECK(chosen(forward_call(), kHopper, {Family::mma}) == Family::mma);
  CHECK(chosen(forward_call(), kHopper, {Family::scalar}) == Family::scalar);
  CHECK(chosen(forward_call(DType::float32), kHopper, {Family::mma}) == Family::scalar);
  CHECK(chosen(forward_call(), kHopper, {Family::hopper, true}) == Family::hopper);
  CHECK(chosen(forward_call(), kAda, {Family::mma, true}) == Family::mma);
  CHECK_THROWS(hetsp::InvalidArgument, "\"hopper\" are set, and no others; they do not serve this call: q: its type",
               chosen(forward_call(DType::float32), kHopper, {Family::hopper, true}));
  CHECK_THROWS(hetsp::InvalidArgument, "call: the device is not", chosen(backward_call(), kAda, {Family::hopper, true}));
  CHECK_THROWS(hetsp::InvalidArgument, "older than compute capability 8.0", chosen(backward_call(), 75, {Family::mma, true}));
}

TEST(the_preference_of_the_process) {
  CHECK(preference().most == Family::hopper && !preference().only);
  prefer({Family::mma, true});
  CHECK(preference().most == Family::mma && preference().only);
  prefer({});
  CHECK(preference().most == Family::hopper && !preference().only);
}

TEST(names) {
  for (const Family family : kAllFamilies) CHECK(family_of(name(family)) == family);
  CHECK_THROWS(hetsp::InvalidArgument, "\"wgmma\", must be scalar, mma or hopper", family_of("wgmma"));
}

TEST_MAIN()
