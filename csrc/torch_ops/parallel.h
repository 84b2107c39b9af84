// torch's threads behind the core's Parallel interface, so that torch.set_num_threads is obeyed.
#pragma once

#include "hetsp/base/parallel.h"

namespace hetsp::torch_ops {

class TorchParallel final : public Parallel {
 public:
  [[nodiscard]] int workers() const override;
  void run(int count, const std::function<void(int worker)>& body) override;
};

}  // namespace hetsp::torch_ops
