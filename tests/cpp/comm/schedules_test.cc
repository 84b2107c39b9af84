// Thousands of seeded runs: whatever the network does, every message arrives once, whole and in its place, or its end says why.
//
//   comm_schedules_test              seeds from 0, as many as 15 seconds hold, at least 200 and at most 4000
//   comm_schedules_test seed_1234    that one
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "comm/schedule.h"

using namespace virtual_network;

namespace {

Verdict judged(std::uint64_t seed) {
  Verdict verdict;
  try {
    verdict = Schedule(seed).run();
  } catch (const std::exception& error) {
    verdict.wrong.push_back(std::string("uncaught exception: ") + error.what());
  }
  for (const std::string& what : verdict.wrong)
    std::printf("seed_%llu: %s\n", static_cast<unsigned long long>(seed), what.c_str());
  return verdict;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) {
    const std::string name = argv[1];
    return judged(std::strtoull(name.substr(name.find('_') + 1).c_str(), nullptr, 10)).wrong.empty() ? 0 : 1;
  }
  Verdict sum;
  std::uint64_t seed = 0, failed = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (; seed < 4000 && failed < 10; ++seed) {
    if (seed >= 200 && std::chrono::steady_clock::now() - begin > std::chrono::seconds(15)) break;
    const Verdict verdict = judged(seed);
    failed += verdict.wrong.empty() ? 0 : 1;
    sum += verdict;
  }
  const auto show = [](const char* what, std::uint64_t count) {
    std::printf("%s %llu, ", what, static_cast<unsigned long long>(count));
  };
  show("seeds", seed);
  show("MB", sum.bytes / 1'000'000);
  show("chunks", sum.chunks);
  show("of them resent", sum.resent);
  show("relayed", sum.relayed);
  show("duplicates dropped", sum.duplicates);
  show("foreign dropped", sum.foreign);
  show("rails down", sum.downs);
  std::printf("%llu seeds failed\n", static_cast<unsigned long long>(failed));
  // A network in which nothing happens proves nothing.
  const bool lively =
      failed > 0 || (sum.resent > seed && sum.relayed > 10 * seed && sum.duplicates > seed && sum.downs > seed / 2);
  if (!lively) std::printf("FAIL too little went wrong\n");
  const bool foreigners_seen = sum.foreign >= sum.foreign_sent;
  if (!foreigners_seen)
    std::printf("FAIL only %llu of %llu foreign frames were dropped\n", static_cast<unsigned long long>(sum.foreign),
                static_cast<unsigned long long>(sum.foreign_sent));
  return failed == 0 && lively && foreigners_seen ? 0 : 1;
}
