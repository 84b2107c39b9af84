// The collectives of the backend, as programs of messages. Whether a piece is small is decided by sizes that all ranks know.
#include <algorithm>
#include <numeric>

#include "c10d/backend.h"
#include "c10d/errors.h"
#include "hetsp/base/error.h"

namespace hetsp::routed {

namespace {

using ::c10d::OpType;
using Use = FlatTensor::Use;

constexpr std::size_t small_bytes = 8192;       // whole: where one round of p - 1 messages beats p - 1 rounds
constexpr std::size_t small_broadcast = 32768;  // the root sends it p - 1 times
constexpr std::size_t segment_bytes = std::size_t{1} << 20;  // of a chain: long enough to be spread, short enough to overlap

const at::Tensor& only(const std::vector<at::Tensor>& tensors, const char* what) {
  require(tensors.size() == 1, what, " takes one tensor, not ", tensors.size());
  return tensors.front();
}

const std::vector<at::Tensor>& only(const std::vector<std::vector<at::Tensor>>& lists, const char* what) {
  require(lists.size() == 1, what, " takes one list of tensors, not ", lists.size());
  return lists.front();
}

void check_root(std::int64_t root, int size, const char* what) {
  require(root >= 0 && root < size, what, ": root rank ", root, " is not in this group of ", size);
}

void check_type(const at::Tensor& a, const at::Tensor& b, const char* what) {
  require(a.scalar_type() == b.scalar_type(), what, ": tensors of one call have types ", a.scalar_type(), " and ",
          b.scalar_type());
}

Pieces bytes_of_all(const std::vector<at::Tensor>& pieces) {
  Pieces bytes;
  for (const at::Tensor& piece : pieces) bytes.push_back(bytes_of(piece));
  return bytes;
}

std::size_t total(const Pieces& pieces) {
  return std::accumulate(pieces.begin(), pieces.end(), std::size_t{0}, [](std::size_t sum, auto p) { return sum + p.size(); });
}

at::Tensor longest_like(const std::vector<at::Tensor>& pieces) {
  const auto longest = std::max_element(pieces.begin(), pieces.end(), [](auto& a, auto& b) { return a.numel() < b.numel(); });
  return at::empty_like(*longest);
}

std::vector<std::int64_t> split_sizes(const std::vector<std::int64_t>& given, const at::Tensor& tensor, int parts,
                                      const char* which) {
  const std::int64_t rows = tensor.dim() == 0 ? 1 : tensor.size(0);
  const std::int64_t row = rows == 0 ? 0 : tensor.numel() / rows;
  if (given.empty()) {
    require(rows % parts == 0, "all_to_all_single: ", which, " of ", rows, " rows does not divide by ", parts,
            " ranks; give split sizes");
    return std::vector<std::int64_t>(parts, rows / parts * row);
  }
  require(static_cast<int>(given.size()) == parts, "all_to_all_single: ", given.size(), " ", which, " split sizes for ", parts,
          " ranks");
  std::vector<std::int64_t> sizes;
  for (const std::int64_t size : given) {
    require(size >= 0, "all_to_all_single: ", which, " split size ", size, " is negative");
    sizes.push_back(size * row);
  }
  const auto sum = std::accumulate(given.begin(), given.end(), std::int64_t{0});
  require(sum == rows, "all_to_all_single: ", which, " split sizes sum to ", sum, ", but there are ", rows, " rows");
  return sizes;
}

}  // namespace

c10::intrusive_ptr<::c10d::Work> Backend::start(Plan plan, OpType type, const char* what, std::chrono::milliseconds timeout,
                                                std::vector<at::Tensor> results) {
  auto work = make_work(type, what, timeout, std::move(results));
  ++collectives_posted_;
  auto done = [work, this, outputs = std::move(plan.outputs), kept = std::move(plan.kept)](std::exception_ptr failure) {
    try {
      if (!failure) std::for_each(outputs.begin(), outputs.end(), [](const FlatTensor& output) { output.commit(); });
    } catch (const std::exception&) {
      failure = std::current_exception();
    }
    try {
      if (failure) std::rethrow_exception(failure);
    } catch (const PeerLost&) {
      failed_ = true;
    } catch (const InvalidArgument& error) {
      failure = std::make_exception_ptr(InvalidArgument(with_type_names(error.what())));
    } catch (const std::exception&) {
      // its Work says so; the group is well
    }
    work->end(failure, rank_);
  };
  work->on_abort(collectives_.post(std::move(plan.program), plan.type, std::move(done), plan.place));
  return work;
}

std::vector<at::Tensor> Backend::take(Plan& plan, const std::vector<at::Tensor>& tensors, Use use, const char* what,
                                      bool on_device) const {
  require(static_cast<int>(tensors.size()) == size_, what, " needs one tensor for each of ", size_, " ranks, not ",
          tensors.size());
  std::vector<at::Tensor> flat;
  for (const at::Tensor& tensor : tensors) {
    check_type(tensor, tensors.front(), what);
    const FlatTensor taken(tensor, use, on_device);
    flat.push_back(taken.flat());
    if (use == Use::read) {
      plan.kept.push_back(taken.flat());
    } else {
      plan.outputs.push_back(taken);
    }
  }
  plan.type = type_code(tensors.front(), on_device);
  return flat;
}

void Backend::plan_allgather(Plan& plan, const std::vector<at::Tensor>& pieces) const {
  const Pieces bytes = bytes_of_all(pieces);
  if (total(bytes) <= small_bytes * static_cast<std::size_t>(size_)) {
    flat_allgather(plan.program, rank_, bytes);
  } else {
    ring_allgather(plan.program, ring_, bytes);
  }
}

// The sum of an element is made on one rank, or on all in the order of the ranks: everyone gets the same bits.
void Backend::plan_allreduce(Plan& plan, const at::Tensor& flat, const ::c10d::ReduceOp& op) const {
  const Reduction reduction(op, flat.scalar_type(), size_);
  plan.type = type_code(flat);
  plan.kept.push_back(flat);
  if (flat.nbytes() <= small_bytes) {
    std::vector<at::Tensor> all;
    for (int rank = 0; rank < size_; ++rank) all.push_back(rank == rank_ ? flat.clone() : at::empty_like(flat));
    flat_allgather(plan.program, rank_, bytes_of_all(all));
    plan.program.back().then = [all, flat, reduction]() mutable {
      const at::NoGradGuard no_grad;
      at::Tensor sum = flat;
      sum.copy_(all.front());
      for (std::size_t rank = 1; rank < all.size(); ++rank) reduction.add(sum, all[rank]);
      reduction.finish(sum);
    };
    return;
  }
  std::vector<at::Tensor> pieces = cut(flat, even_sizes(flat.numel(), size_));
  plan_reduce_scatter(plan, pieces, pieces[rank_], op);
  ring_allgather(plan.program, ring_, bytes_of_all(pieces));
}

// Spends `pieces`; the sum is in `output`, which may be this rank's piece.
void Backend::plan_reduce_scatter(Plan& plan, const std::vector<at::Tensor>& pieces, const at::Tensor& output,
                                  const ::c10d::ReduceOp& op) const {
  const Reduction reduction(op, output.scalar_type(), size_);
  plan.type = type_code(output);
  plan.kept.insert(plan.kept.end(), pieces.begin(), pieces.end());
  const at::Tensor room = longest_like(pieces);
  const auto incoming = [&](int rank) { return bytes_of(room.narrow(0, 0, pieces[rank].numel())); };
  const auto reduce = [room, pieces, reduction](int rank) {
    at::Tensor sum = pieces[rank];
    reduction.add(sum, room.narrow(0, 0, sum.numel()));
  };
  ring_reduce_scatter(plan.program, ring_, bytes_of_all(pieces), incoming, reduce);
  Round last;  // no message: what remains to do here
  last.then = [mine = pieces[rank_], output, reduction]() mutable {
    const at::NoGradGuard no_grad;
    reduction.finish(mine);
    if (!output.is_same(mine)) output.copy_(mine);
  };
  plan.program.push_back(std::move(last));
}

void Backend::plan_alltoall(Plan& plan, const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs) const {
  const at::NoGradGuard no_grad;
  require(outputs[rank_].numel() == inputs[rank_].numel(), "all_to_all: rank ", rank_, " sends itself ", inputs[rank_].numel(),
          " elements and expects ", outputs[rank_].numel());
  const at::Tensor& own = outputs[rank_];
  own.copy_(inputs[rank_]);
  if (comm::is_on_device(plan.type)) {
    Round ready;  // no message: until the device is there
    ready.then = [moment = std::make_shared<Moment>(own.device())] { moment->wait(); };
    plan.program.push_back(std::move(ready));
  }
  Round round;
  for (int step = 1; step < size_; ++step) {  // each rank begins with another one
    const int to = (rank_ + step) % size_, from = (rank_ - step + size_) % size_;
    round.sends.push_back({to, bytes_of(inputs[to])});
    round.receives.push_back({from, bytes_of(outputs[from])});
  }
  plan.program.push_back(std::move(round));
}

c10::intrusive_ptr<::c10d::Work> Backend::broadcast(std::vector<at::Tensor>& tensors, const ::c10d::BroadcastOptions& options) {
  if (::c10d::Backend* const other = elsewhere(tensors)) return other->broadcast(tensors, options);
  const at::Tensor& tensor = only(tensors, "broadcast");
  check_root(options.rootRank, size_, "broadcast");
  const int root = static_cast<int>(options.rootRank);
  const FlatTensor host(tensor, root == rank_ ? Use::read : Use::write);
  Plan plan{.program = {}, .type = type_code(tensor), .outputs = {}, .kept = {host.flat()}};
  if (root != rank_) plan.outputs.push_back(host);
  if (host.bytes().size() > small_broadcast) {
    chain_broadcast(plan.program, ring_, root, host.bytes(), segment_bytes);
  } else {
    Round round;
    if (root != rank_) round.receives.push_back({root, host.bytes()});
    for (int step = 1; root == rank_ && step < size_; ++step) round.sends.push_back({(rank_ + step) % size_, host.bytes()});
    plan.program.push_back(std::move(round));
  }
  return start(std::move(plan), OpType::BROADCAST, "broadcast", options.timeout, tensors);
}

c10::intrusive_ptr<::c10d::Work> Backend::allreduce(std::vector<at::Tensor>& tensors, const ::c10d::AllreduceOptions& options) {
  if (::c10d::Backend* const other = elsewhere(tensors)) return other->allreduce(tensors, options);
  Plan plan;
  plan.outputs.emplace_back(only(tensors, "allreduce"), Use::update);
  plan_allreduce(plan, plan.outputs.front().flat(), options.reduceOp);
  return start(std::move(plan), OpType::ALLREDUCE, "allreduce", options.timeout, tensors);
}

c10::intrusive_ptr<::c10d::Work> Backend::allreduce_coalesced(std::vector<at::Tensor>& tensors,
                                                              const ::c10d::AllreduceCoalescedOptions& options) {
  if (::c10d::Backend* const other = elsewhere(tensors)) return other->allreduce_coalesced(tensors, options);
  require(!tensors.empty(), "allreduce_coalesced needs at least one tensor");
  Plan plan;
  for (const at::Tensor& tensor : tensors) {
    check_type(tensor, tensors.front(), "allreduce_coalesced");
    plan.outputs.emplace_back(tensor, Use::update);
    plan_allreduce(plan, plan.outputs.back().flat(), options.reduceOp);
  }
  return start(std::move(plan), OpType::ALLREDUCE_COALESCED, "allreduce_coalesced", options.timeout, tensors);
}

c10::intrusive_ptr<::c10d::Work> Backend::reduce(std::vector<at::Tensor>& tensors, const ::c10d::ReduceOptions& options) {
  if (::c10d::Backend* const other = elsewhere(tensors)) return other->reduce(tensors, options);
  const at::Tensor& tensor = only(tensors, "reduce");
  check_root(options.rootRank, size_, "reduce");
  const int root = static_cast<int>(options.rootRank);
  Plan plan;
  const FlatTensor host(tensor, Use::update);
  if (root == rank_) plan.outputs.push_back(host);
  const at::Tensor flat = root == rank_ ? host.flat() : host.flat().clone();  // only the root's tensor changes
  if (flat.nbytes() <= small_bytes) {
    const Reduction reduction(options.reduceOp, flat.scalar_type(), size_);
    plan.type = type_code(flat);
    plan.kept.push_back(flat);
    Round round;
    if (root != rank_) {
      round.sends.push_back({root, bytes_of(flat)});
    } else {
      std::vector<at::Tensor> all;
      for (int rank = 0; rank < size_; ++rank) {
        all.push_back(rank == rank_ ? flat.clone() : at::empty_like(flat));
        if (rank != rank_) round.receives.push_back({rank, bytes_of(all.back())});
      }
      round.then = [all, flat, reduction] {
        const at::NoGradGuard no_grad;
        at::Tensor sum = flat;
        sum.copy_(all.front());
        for (std::size_t rank = 1; rank < all.size(); ++rank) reduction.add(sum, all[rank]);
        reduction.finish(sum);
      };
    }
    plan.program.push_back(std::move(round));
  } else {
    const std::vector<at::Tensor> pieces = cut(flat, even_sizes(flat.numel(), size_));
    plan_reduce_scatter(plan, pieces, pieces[rank_], options.reduceOp);
    Round round;
    if (root != rank_) round.sends.push_back({root, bytes_of(pieces[rank_])});
    for (int rank = 0; root == rank_ && rank < size_; ++rank) {
      if (rank != rank_) round.receives.push_back({rank, bytes_of(pieces[rank])});
    }
    plan.program.push_back(std::move(round));
  }
  return start(std::move(plan), OpType::REDUCE, "reduce", options.timeout, tensors);
}

c10::intrusive_ptr<::c10d::Work> Backend::alltoall_base(at::Tensor& output, at::Tensor& input,
                                                        std::vector<std::int64_t>& output_sizes,
                                                        std::vector<std::int64_t>& input_sizes,
                                                        const ::c10d::AllToAllOptions& options) {
  check_type(output, input, "all_to_all_single");
  const auto out_sizes = split_sizes(output_sizes, output, size_, "output"),
             in_sizes = split_sizes(input_sizes, input, size_, "input");
  const bool on_device = on_lanes(output, "all_to_all_single");
  require(!on_device || input.device() == output.device(), "all_to_all_single: input on ", input.device(), ", output on ",
          output.device());
  const FlatTensor out(output, Use::write, on_device), in(input, Use::read, on_device);
  Plan plan{.program = {}, .type = type_code(output, on_device), .outputs = {out}, .kept = {out.flat(), in.flat()}};
  plan_alltoall(plan, cut(out.flat(), out_sizes), cut(in.flat(), in_sizes));
  return start(std::move(plan), OpType::ALLTOALL_BASE, "all_to_all_single", options.timeout, {output});
}

c10::intrusive_ptr<::c10d::Work> Backend::alltoall(std::vector<at::Tensor>& outputs, std::vector<at::Tensor>& inputs,
                                                   const ::c10d::AllToAllOptions& options) {
  Plan plan;
  const bool on_device = !outputs.empty() && on_lanes(outputs.front(), "all_to_all");
  for (const auto* const tensors : {&inputs, &outputs})
    for (const at::Tensor& tensor : *tensors)
      require(!on_device || tensor.device() == outputs.front().device(), "all_to_all: tensors on ", tensor.device(), " and ",
              outputs.front().device());
  const auto in = take(plan, inputs, Use::read, "all_to_all", on_device);
  const auto out = take(plan, outputs, Use::write, "all_to_all", on_device);
  check_type(outputs.front(), inputs.front(), "all_to_all");
  plan_alltoall(plan, out, in);
  return start(std::move(plan), OpType::ALLTOALL, "all_to_all", options.timeout, outputs);
}

c10::intrusive_ptr<::c10d::Work> Backend::gather(std::vector<std::vector<at::Tensor>>& outputs, std::vector<at::Tensor>& inputs,
                                                 const ::c10d::GatherOptions& options) {
  if (::c10d::Backend* const other = elsewhere(inputs)) return other->gather(outputs, inputs, options);
  const at::Tensor& input = only(inputs, "gather");
  check_root(options.rootRank, size_, "gather");
  const int root = static_cast<int>(options.rootRank);
  const FlatTensor in(input, Use::read);
  Plan plan{.program = {}, .type = type_code(input), .outputs = {}, .kept = {in.flat()}};
  Round round;
  std::vector<at::Tensor> results;
  if (root != rank_) {
    require(outputs.empty(), "gather: rank ", rank_, " is not the root ", root,
            " and gets nothing, but gave a list of outputs");
    round.sends.push_back({root, in.bytes()});
  } else {
    results = only(outputs, "gather");
    auto pieces = take(plan, results, Use::write, "gather");
    check_type(input, results.front(), "gather");
    require(pieces[rank_].numel() == input.numel(), "gather: input of ", input.numel(), " elements, output of ",
            pieces[rank_].numel());
    for (int rank = 0; rank < size_; ++rank) {
      if (rank != rank_) round.receives.push_back({rank, bytes_of(pieces[rank])});
    }
    const at::NoGradGuard no_grad;
    pieces[rank_].copy_(in.flat());
  }
  plan.program.push_back(std::move(round));
  return start(std::move(plan), OpType::GATHER, "gather", options.timeout, std::move(results));
}

c10::intrusive_ptr<::c10d::Work> Backend::scatter(std::vector<at::Tensor>& outputs,
                                                  std::vector<std::vector<at::Tensor>>& inputs,
                                                  const ::c10d::ScatterOptions& options) {
  if (::c10d::Backend* const other = elsewhere(outputs)) return other->scatter(outputs, inputs, options);
  const at::Tensor& output = only(outputs, "scatter");
  check_root(options.rootRank, size_, "scatter");
  const int root = static_cast<int>(options.rootRank);
  const FlatTensor out(output, Use::write);
  Plan plan{.program = {}, .type = type_code(output), .outputs = {out}, .kept = {out.flat()}};
  Round round;
  if (root != rank_) {
    require(inputs.empty(), "scatter: rank ", rank_, " is not the root ", root, ", but gave a list of inputs");
    round.receives.push_back({root, out.bytes()});
  } else {
    const auto pieces = take(plan, only(inputs, "scatter"), Use::read, "scatter");
    check_type(output, inputs.front().front(), "scatter");
    require(pieces[rank_].numel() == output.numel(), "scatter: input of ", pieces[rank_].numel(), " elements, output of ",
            output.numel());
    for (int rank = 0; rank < size_; ++rank) {
      if (rank != rank_) round.sends.push_back({rank, bytes_of(pieces[rank])});
    }
    const at::NoGradGuard no_grad;
    out.flat().copy_(pieces[rank_]);
  }
  plan.program.push_back(std::move(round));
  return start(std::move(plan), OpType::SCATTER, "scatter", options.timeout, outputs);
}

c10::intrusive_ptr<::c10d::Work> Backend::barrier(const ::c10d::BarrierOptions& options) {
  Plan plan;
  dissemination_barrier(plan.program, rank_, size_);
  return start(std::move(plan), OpType::BARRIER, "barrier", options.timeout, {});
}

c10::intrusive_ptr<::c10d::Work> Backend::farewell() {
  Plan plan;
  plan.place = CollectiveThread::Place::farewell;
  dissemination_barrier(plan.program, rank_, size_);
  return start(std::move(plan), OpType::BARRIER, "leaving the group", {}, {});
}

}  // namespace hetsp::routed
