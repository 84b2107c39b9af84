// Fails chosen calls.
//
//   PosixFileSystem disk;
//   FaultyFileSystem fs(disk);
//   fs.fail({.operation = Operation::fsync, .nth = 2, .code = EIO});             // the second fsync
//   fs.fail({.nth = 7, .code = ENOSPC, .times = FaultyFileSystem::kForever});    // the 7th call of any kind and all after it
//   fs.shorten({.operation = Operation::pwrite, .nth = 1}, 4096);                // the first pwrite moves 4096 bytes
#pragma once

#include "checkpoint/hooked_file_system.h"

namespace hetsp::checkpoint {

class FaultyFileSystem : public HookedFileSystem {
 public:
  static constexpr std::int64_t kForever = std::int64_t{1} << 60;
  struct Fault {
    std::optional<Operation> operation = {};  // none: every kind
    std::int64_t nth = 1;                // counted from 1 among the calls that fit, from when the fault was set
    int code = EIO;
    std::int64_t times = 1;  // so many in a row
    std::string part = {};   // only calls whose path contains it
    int flags = 0;           // only opens that have all these flags
  };

  using HookedFileSystem::HookedFileSystem;
  void fail(const Fault& fault) { add(fault, -fault.code); }
  void shorten(const Fault& fault, std::int64_t bytes) { add(fault, bytes); }
  void heal() {
    const std::lock_guard lock(mutex_);
    rules_.clear();
  }
  std::int64_t calls(std::optional<Operation> operation = std::nullopt) {
    const std::lock_guard lock(mutex_);
    std::int64_t sum = 0;
    for (const auto& [kind, count] : calls_) sum += !operation || *operation == kind ? count : 0;
    return sum;
  }
  std::int64_t injected() {  // how often a rule struck
    const std::lock_guard lock(mutex_);
    return injected_;
  }
  int open_descriptors() {
    const std::lock_guard lock(mutex_);
    return open_;
  }

 protected:
  std::optional<std::int64_t> before(const Call& call) override {
    const std::lock_guard lock(mutex_);
    ++calls_[call.operation];
    std::optional<std::int64_t> verdict;
    for (auto& rule : rules_) {
      const Fault& f = rule.fault;
      if (f.operation && *f.operation != call.operation) continue;
      if (call.path.find(f.part) == std::string::npos || (call.flags & f.flags) != f.flags) continue;
      const std::int64_t ordinal = ++rule.seen;
      if (ordinal < f.nth || ordinal - f.nth >= f.times || verdict) continue;
      verdict = rule.outcome;
      ++injected_;
    }
    return verdict;
  }
  void after(const Call& call, std::int64_t result) override {
    const std::lock_guard lock(mutex_);
    open_ += call.operation == Operation::open && result >= 0;
    open_ -= call.operation == Operation::close;
  }

 private:
  struct Rule {
    Fault fault;
    std::int64_t outcome;
    std::int64_t seen = 0;
  };
  void add(const Fault& fault, std::int64_t outcome) {
    const std::lock_guard lock(mutex_);
    rules_.push_back({fault, outcome});
  }

  std::mutex mutex_;
  std::vector<Rule> rules_;
  std::map<Operation, std::int64_t> calls_;
  std::int64_t injected_ = 0;
  int open_ = 0;
};

}  // namespace hetsp::checkpoint
