// The collectives of the backend that gather or scatter by rank: allgather and reduce_scatter in their many spellings.
#include "c10d/backend.h"
#include "hetsp/base/error.h"

namespace hetsp::routed {

namespace {

using ::c10d::OpType;
using Use = FlatTensor::Use;
using Tensors = std::vector<at::Tensor>;

void check_count(std::size_t outputs, std::size_t inputs, const char* what) {
  require(outputs == inputs && outputs > 0, what, ": ", outputs, " outputs for ", inputs,
          " inputs; allowed: as many, at least one");
}

void check_pair(const at::Tensor& large, const at::Tensor& small, int ranks, const char* what) {
  require(large.scalar_type() == small.scalar_type(), what, ": types ", large.scalar_type(), " and ", small.scalar_type(),
          " differ");
  require(large.numel() == small.numel() * ranks, what, ": ", large.numel(), " elements for ", ranks, " ranks of ",
          small.numel());
}

// Puts `input` into this rank's place of what is gathered.
void put_own(const Tensors& pieces, int rank, const at::Tensor& input, const char* what) {
  const at::Tensor& own = pieces[rank];
  require(own.scalar_type() == input.scalar_type() && own.numel() == input.numel(), what, ": rank ", rank, " gives ",
          input.numel(), " elements of ", input.scalar_type(), ", its place has ", own.numel(), " of ", own.scalar_type());
  const at::NoGradGuard no_grad;
  own.copy_(FlatTensor(input, Use::read).flat());
}

Tensors joined(const std::vector<Tensors>& lists) {
  Tensors all;
  for (const Tensors& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

}  // namespace

void Backend::plan_allgather_base(Plan& plan, const at::Tensor& output, const at::Tensor& input) const {
  check_pair(output, input, size_, "all_gather_into_tensor");
  plan.outputs.emplace_back(output, Use::write);
  plan.type = type_code(output);
  const at::Tensor flat = plan.outputs.back().flat();
  plan.kept.push_back(flat);
  const Tensors pieces = cut(flat, even_sizes(flat.numel(), size_));
  put_own(pieces, rank_, input, "all_gather_into_tensor");
  plan_allgather(plan, pieces);
}

c10::intrusive_ptr<::c10d::Work> Backend::allgather(std::vector<Tensors>& outputs, Tensors& inputs,
                                                    const ::c10d::AllgatherOptions& options) {
  if (::c10d::Backend* const other = elsewhere(inputs)) return other->allgather(outputs, inputs, options);
  require(outputs.size() == 1 && inputs.size() == 1, "all_gather takes one input and one list of outputs, not ", inputs.size(),
          " and ", outputs.size());
  Plan plan;
  const Tensors pieces = take(plan, outputs.front(), Use::write, "all_gather");
  put_own(pieces, rank_, inputs.front(), "all_gather");
  plan_allgather(plan, pieces);
  return start(std::move(plan), OpType::ALLGATHER, "all_gather", options.timeout, outputs.front());
}

// outputs[rank][i] is what inputs[i] is on that rank.
c10::intrusive_ptr<::c10d::Work> Backend::allgather_coalesced(std::vector<Tensors>& outputs, Tensors& inputs,
                                                              const ::c10d::AllgatherOptions& options) {
  require(static_cast<int>(outputs.size()) == size_, "all_gather_coalesced needs a list for each of ", size_, " ranks, not ",
          outputs.size());
  Plan plan;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    Tensors places;
    for (const Tensors& list : outputs) {
      require(list.size() == inputs.size(), "all_gather_coalesced: ", list.size(), " outputs of a rank for ", inputs.size(),
              " inputs");
      places.push_back(list[i]);
    }
    const Tensors pieces = take(plan, places, Use::write, "all_gather_coalesced");
    put_own(pieces, rank_, inputs[i], "all_gather_coalesced");
    plan_allgather(plan, pieces);
  }
  return start(std::move(plan), OpType::ALLGATHER_COALESCED, "all_gather_coalesced", options.timeout, joined(outputs));
}

c10::intrusive_ptr<::c10d::Work> Backend::_allgather_base(at::Tensor& output, at::Tensor& input,
                                                          const ::c10d::AllgatherOptions& options) {
  if (::c10d::Backend* const other = elsewhere(output)) return other->_allgather_base(output, input, options);
  Plan plan;
  plan_allgather_base(plan, output, input);
  return start(std::move(plan), OpType::_ALLGATHER_BASE, "all_gather_into_tensor", options.timeout, {output});
}

c10::intrusive_ptr<::c10d::Work> Backend::allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                                          const ::c10d::AllgatherOptions& options) {
  if (::c10d::Backend* const other = elsewhere(outputs))
    return other->allgather_into_tensor_coalesced(outputs, inputs, options);
  check_count(outputs.size(), inputs.size(), "all_gather_into_tensor_coalesced");
  Plan plan;
  for (std::size_t i = 0; i < inputs.size(); ++i) plan_allgather_base(plan, outputs[i], inputs[i]);
  return start(std::move(plan), OpType::ALLGATHER_COALESCED, "all_gather_into_tensor_coalesced", options.timeout, outputs);
}

void Backend::plan_reduce_scatter_base(Plan& plan, const at::Tensor& output, const at::Tensor& input,
                                       const ::c10d::ReduceOp& op) const {
  check_pair(input, output, size_, "reduce_scatter_tensor");
  plan.outputs.emplace_back(output, Use::write);
  const at::Tensor work = FlatTensor(input, Use::read).flat().clone();  // the ring adds into it
  plan_reduce_scatter(plan, cut(work, even_sizes(work.numel(), size_)), plan.outputs.back().flat(), op);
}

c10::intrusive_ptr<::c10d::Work> Backend::reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                                         const ::c10d::ReduceScatterOptions& options) {
  if (::c10d::Backend* const other = elsewhere(outputs)) return other->reduce_scatter(outputs, inputs, options);
  require(outputs.size() == 1 && inputs.size() == 1, "reduce_scatter takes one output and one list of inputs, not ",
          outputs.size(), " and ", inputs.size());
  Plan plan;
  Tensors pieces;
  for (const at::Tensor& piece : take(plan, inputs.front(), Use::read, "reduce_scatter")) pieces.push_back(piece.clone());
  const at::Tensor& output = outputs.front();
  require(output.scalar_type() == pieces[rank_].scalar_type() && output.numel() == pieces[rank_].numel(),
          "reduce_scatter: output of ", output.numel(), " elements of ", output.scalar_type(), " for inputs of ",
          pieces[rank_].numel(), " of ", pieces[rank_].scalar_type());
  plan.outputs.emplace_back(output, Use::write);
  plan_reduce_scatter(plan, pieces, plan.outputs.back().flat(), options.reduceOp);
  return start(std::move(plan), OpType::REDUCE_SCATTER, "reduce_scatter", options.timeout, outputs);
}

c10::intrusive_ptr<::c10d::Work> Backend::_reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                                                               const ::c10d::ReduceScatterOptions& options) {
  if (::c10d::Backend* const other = elsewhere(output)) return other->_reduce_scatter_base(output, input, options);
  Plan plan;
  plan_reduce_scatter_base(plan, output, input, options.reduceOp);
  return start(std::move(plan), OpType::_REDUCE_SCATTER_BASE, "reduce_scatter_tensor", options.timeout, {output});
}

c10::intrusive_ptr<::c10d::Work> Backend::reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                                          const ::c10d::ReduceScatterOptions& options) {
  if (::c10d::Backend* const other = elsewhere(outputs))
    return other->reduce_scatter_tensor_coalesced(outputs, inputs, options);
  check_count(outputs.size(), inputs.size(), "reduce_scatter_tensor_coalesced");
  Plan plan;
  for (std::size_t i = 0; i < inputs.size(); ++i) plan_reduce_scatter_base(plan, outputs[i], inputs[i], options.reduceOp);
  // OpType has a name of its own for this from torch 2.13 on only.
  return start(std::move(plan), OpType::_REDUCE_SCATTER_BASE, "reduce_scatter_tensor_coalesced", options.timeout, outputs);
}

}  // namespace hetsp::routed
