#include "c10d/collective_thread.h"

#include <condition_variable>
#include <mutex>
#include <utility>
#include <vector>

#include "c10d/errors.h"

namespace hetsp::routed {

namespace {
constexpr std::int64_t farewell_tag = std::int64_t{1} << 40;  // users' tags are below
constexpr std::int64_t first_tag = farewell_tag + 1;
}  // namespace

// One collective under way.
struct CollectiveThread::Run {
  Program program;
  std::uint16_t type = 0;
  std::function<void(std::exception_ptr)> done;
  std::mutex mutex;
  std::condition_variable wake;
  std::size_t open = 0;        // messages of the present round
  std::exception_ptr failure;  // the first

  void fail(std::exception_ptr why) {
    const std::scoped_lock lock(mutex);
    if (!failure) failure = std::move(why);
    wake.notify_one();
  }
};

std::function<void()> CollectiveThread::post(Program program, std::uint16_t type, std::function<void(std::exception_ptr)> done,
                                             Place place) {
  const auto run = std::make_shared<Run>();
  run->program = std::move(program);
  run->type = type;
  run->done = std::move(done);
  const bool taken = thread_.put([this, run, place] {
    const std::int64_t tag = place == Place::farewell ? farewell_tag : first_tag + next_++;
    for (const Round& round : run->program) this->run(run, round, tag);
    run->program.clear();  // and the tensors that it holds, though someone may still hold the way to cancel it
    std::unique_lock lock(run->mutex);
    const std::exception_ptr failure = run->failure;
    lock.unlock();
    std::exchange(run->done, nullptr)(failure);
  });
  if (!taken) run->done(std::make_exception_ptr(OperationAborted("the group was shut down")));
  return [run] { run->fail(std::make_exception_ptr(OperationAborted("the collective was aborted on this rank"))); };
}

void CollectiveThread::run(const std::shared_ptr<Run>& run, const Round& round, std::int64_t tag) {
  std::unique_lock lock(run->mutex);
  const bool failed = run->failure != nullptr;
  run->open = round.receives.size() + (failed ? 0 : round.sends.size());
  lock.unlock();
  const auto done = [run](const comm::Outcome& outcome, int) {
    const std::scoped_lock guard(run->mutex);
    --run->open;
    if (outcome.kind != comm::Outcome::Kind::done && !run->failure) run->failure = exception_of(outcome);
    if (run->open == 0 || run->failure) run->wake.notify_one();
  };
  std::vector<comm::Operation> operations;
  for (const Message& message : round.receives) {
    operations.push_back(driver_.receive(message.peer, tag, message.bytes, run->type, done));
  }
  for (const Message& message : round.sends) {
    if (failed) {  // what it would hold is wrong
      driver_.send_given_up(message.peer, tag, message.bytes.size(), run->type);
    } else {
      operations.push_back(driver_.send(message.peer, tag, message.bytes, run->type, done));
    }
  }
  lock.lock();
  run->wake.wait(lock, [&] { return run->open == 0 || run->failure; });
  if (run->open > 0) {
    lock.unlock();
    for (const comm::Operation operation : operations) driver_.cancel(operation, "the collective failed on this rank", true);
    lock.lock();
    run->wake.wait(lock, [&] { return run->open == 0; });
  }
  const bool well = !run->failure;
  lock.unlock();
  if (!well || !round.then) return;
  try {
    round.then();
  } catch (const std::exception&) {
    run->fail(std::current_exception());
  }
}

}  // namespace hetsp::routed
