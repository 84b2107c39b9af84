#include "c10d/gloo_lane.h"

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <chrono>
#include <utility>
#include <vector>

namespace hetsp::routed {

namespace {

constexpr int tag = 1;  // one is enough: the frames of a lane keep their order

// A Gloo wait that runs into its deadline closes every connection of the context, so it must never do so.
constexpr std::chrono::milliseconds for_ever = std::chrono::hours(24 * 365);

class GlooPending : public Pending {
 public:
  explicit GlooPending(c10::intrusive_ptr<::c10d::Work> work) : work_(std::move(work)) {}
  bool wait() override { return work_->wait(for_ever); }
  void abort() override { work_->abort(); }

 private:
  c10::intrusive_ptr<::c10d::Work> work_;
};

class GlooLane : public Lane {
 public:
  GlooLane(c10::intrusive_ptr<::c10d::Backend> context, int peer) : context_(std::move(context)), peer_(peer) {}

  std::unique_ptr<Pending> send(std::span<std::byte> bytes) override {
    std::vector<at::Tensor> tensors{view(bytes)};
    return std::make_unique<GlooPending>(context_->send(tensors, peer_, tag));
  }

  std::unique_ptr<Pending> receive(std::span<std::byte> room) override {
    std::vector<at::Tensor> tensors{view(room)};
    return std::make_unique<GlooPending>(context_->recv(tensors, peer_, tag));
  }

 private:
  static at::Tensor view(std::span<std::byte> bytes) {
    return at::from_blob(bytes.data(), {static_cast<std::int64_t>(bytes.size())}, at::TensorOptions().dtype(at::kByte));
  }

  c10::intrusive_ptr<::c10d::Backend> context_;
  int peer_;
};

}  // namespace

std::unique_ptr<Lane> gloo_lane(c10::intrusive_ptr<::c10d::Backend> context, int peer) {
  return std::make_unique<GlooLane>(std::move(context), peer);
}

}  // namespace hetsp::routed
