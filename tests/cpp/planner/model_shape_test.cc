#include "hetsp/planner/model_shape.h"

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

const ModelShape kSmall{
    .layers = 3, .hidden = 4, .intermediate = 8, .heads = 2, .kv_heads = 1, .head_dim = 4, .vocabulary = 10};

}  // namespace

TEST(llama_2_has_its_published_parameters) {
  // 6.74 and 68.98 billion with the embedding table (arXiv 2307.09288; the norms are left out here).
  const ModelShape seven{.intermediate = 11008, .kv_heads = 32, .vocabulary = 32000};
  CHECK_NEAR(weights(seven) + 4096.0 * 32000, 6.738e9, 1e6);
  const ModelShape seventy{.layers = 80, .hidden = 8192, .intermediate = 28672, .heads = 64, .vocabulary = 32000};
  CHECK_NEAR(weights(seventy) + 8192.0 * 32000, 68.976e9, 2e6);
}

TEST(work_by_hand) {
  const double layer = 4 * 8 + 2 * 4 * 4 + 8 * 4 + 3 * 4 * 8;  // Q, K and V, output, MLP
  CHECK_EQ(weights(kSmall), 3 * layer + 40);
  CHECK_EQ(token_flops(kSmall), 6 * weights(kSmall));
  CHECK_EQ(token_flops(kSmall, true), 8 * weights(kSmall));
  CHECK_EQ(pair_flops(kSmall), 3 * 7 * 2 * 8);
  CHECK_EQ(pair_flops(kSmall, true), 3 * 9 * 2 * 8);
  CHECK_EQ(activation_bytes_per_token(kSmall), 3 * 2 * (16 + 16 + 8 + 24));
  CHECK_EQ(activation_bytes_per_token(kSmall, true), 2 * (3 * 4 + 16 + 16 + 8 + 24));
}

TEST(layers_by_kind) {
  ModelShape mixed = kSmall;
  mixed.windowed_layers = 1, mixed.window = 9, mixed.attentionless_layers = 1;
  CHECK_EQ(mixed.full_layers(), 1);
  CHECK_EQ(mixed.attention_layers(), 2);
  CHECK_EQ(pair_flops(mixed), 7 * 2 * 8);
  CHECK_EQ(window_flops_per_token(mixed), 10 * 7 * 2 * 8);
  CHECK_EQ(token_flops(mixed), token_flops(kSmall));
}

TEST(bad_values_are_named) {
  ModelShape bad = kSmall;
  bad.windowed_layers = 2, bad.attentionless_layers = 2;
  CHECK_THROWS(InvalidArgument, "windowed_layers is 2 and attentionless_layers 2, together more", (planner::check(bad), 0));
  bad = kSmall;
  bad.head_dim = 0;
  CHECK_THROWS(InvalidArgument, "head_dim is 0", (planner::check(bad), 0));
  bad = kSmall;
  bad.window = -1;
  CHECK_THROWS(InvalidArgument, "window is -1", (planner::check(bad), 0));
}

TEST_MAIN()
