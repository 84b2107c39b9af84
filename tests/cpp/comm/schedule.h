// A seeded run of a whole group: random nodes, messages, faults, sometimes a death; then the judge, who knows only what was
// sent.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "comm/virtual_group.h"

namespace virtual_network {

struct Verdict {
  std::vector<std::string> wrong;  // empty: all is well
  std::uint64_t bytes = 0, chunks = 0, resent = 0, relayed = 0, duplicates = 0, foreign = 0, downs = 0;
  std::uint64_t foreign_sent = 0;  // frames of other groups that the network made up

  void operator+=(const Verdict& other) {
    wrong.insert(wrong.end(), other.wrong.begin(), other.wrong.end());
    bytes += other.bytes;
    chunks += other.chunks;
    resent += other.resent;
    relayed += other.relayed;
    duplicates += other.duplicates;
    foreign += other.foreign;
    downs += other.downs;
    foreign_sent += other.foreign_sent;
  }
};

// Small chunks on slow NICs walk the same paths as large ones on fast NICs, for a fraction of the copying.
inline GroupOptions random_group(Dice& dice) {
  GroupOptions o;
  o.nodes = 1 + static_cast<int>(dice.below(3));
  if (o.nodes == 1 && !dice.once_in(4)) o.nodes = 2;
  o.ranks = 1 + static_cast<int>(dice.below(4));
  if (o.nodes * o.ranks == 1) o.ranks = 2;
  o.nics = 1 + static_cast<int>(dice.below(4));
  o.nic_rate = dice.once_in(3) ? 8e5 : 8e6;
  o.control_rate = 5e7;
  o.local_rate = 2e8;
  o.nic_delay = dice.once_in(4) ? 5 * kMs : 50 * kUs;
  o.tell_rates = dice.once_in(2);
  if (dice.once_in(3)) o.control_nic = static_cast<int>(dice.below(static_cast<std::uint64_t>(o.nics)));
  if (dice.once_in(4)) o.lag = 2 * kMs;
  if (dice.once_in(4)) o.hiccups = 0.01;
  if (!dice.once_in(3)) o.ghosts = 0.5, o.late_chunks = 0.02, o.foreigners = 0.02;
  o.engine = {.job = 1 + dice.below(1000), .chunk_bytes = 4096, .eager_bytes = 512, .direct_bytes = 4096};
  if (dice.once_in(2)) o.engine.rail_eager_bytes = 4095;
  o.engine.eager_window = 8192;
  o.engine.message_window = 128 * 1024;
  return o;
}

class Schedule {
 public:
  explicit Schedule(std::uint64_t seed, bool forget_epochs = false)
      : dice_(seed), group_(with(random_group(dice_), forget_epochs), seed + 1) {}

  Verdict run() {
    post_messages();
    if (dice_.once_in(5)) post_for_anyone();
    plan_faults();
    if (dice_.once_in(8)) plan_death();
    if (!group_.run(60 * kSecond)) wrong("after a minute " + std::to_string(unfinished()) + " operations had not ended");
    group_.pass(6 * kSecond);  // late frames must not do harm
    for (int i = 0; i < 100 && !idle(); ++i) group_.pass(10 * kMs);  // nor does it if one of them was answered just now
    judge();
    return verdict_;
  }
  Group& group() { return group_; }

 private:
  static GroupOptions with(GroupOptions o, bool forget_epochs) {
    o.forget_epochs = forget_epochs;
    if (forget_epochs) o.ghosts = 0.5, o.late_chunks = 0.2;
    return o;
  }

  std::size_t size() {
    const std::size_t chunk = group_.options.engine.chunk_bytes, eager = group_.options.engine.eager_bytes;
    switch (dice_.below(6)) {
      case 0:
        return dice_.below(4);
      case 1:
        return eager - 1 + dice_.below(3);
      case 2:
        return chunk * (1 + dice_.below(4)) - 1 + dice_.below(3);
      case 3:
        return dice_.below(8 * chunk);
      default:
        return dice_.below(60 * chunk);
    }
  }

  // Both sides post the messages of a pair and tag in the same order, each at times of its own.
  void post_messages() {
    const auto ranks = static_cast<std::uint64_t>(group_.topology().ranks());
    const std::uint64_t count = 1 + dice_.below(dice_.once_in(4) ? 60 : 15);
    const Time spread = dice_.once_in(2) ? 1 : 500 * kMs;
    std::map<std::tuple<int, int, std::int64_t>, std::pair<Time, Time>> last;
    const auto hot = static_cast<int>(dice_.below(ranks));
    for (std::uint64_t i = 0; i < count; ++i) {
      const int from = dice_.once_in(3) ? hot : static_cast<int>(dice_.below(ranks));
      const int to = (from + 1 + static_cast<int>(dice_.below(ranks - 1))) % static_cast<int>(ranks);
      const auto tag = static_cast<std::int64_t>(dice_.below(3));
      Message& message = group_.message(from, to, tag, size());
      auto& [sends, receives] = last[{from, to, tag}];
      sends = std::max(sends, dice_.between(0, spread));
      receives = std::max(receives, dice_.between(0, spread));
      if (dice_.once_in(40)) message.receive_type = 2;
      if (dice_.once_in(40)) message.in.resize(message.in.size() + 1);
      group_.clock.after(sends, [this, &message] { group_.post_send(message); });
      group_.clock.after(receives, [this, &message] { group_.post_receive(message); });
      if (dice_.once_in(30)) {
        canceled_.insert(&message);
        const Time when = dice_.between(kUs, 100 * kMs);
        if (dice_.once_in(2)) {
          group_.clock.after(sends + when, [this, &message] { group_.cancel(message, true); });
        } else {  // a receive that had not met its message is gone, and with it the message's chance: nobody else has its tag
          message.tag = static_cast<std::int64_t>(1000 + i);
          group_.clock.after(receives + when, [this, &message] { group_.cancel(message, false); });
          group_.clock.after(sends + kSecond, [this, &message] { group_.cancel(message, true); });
        }
      }
    }
    group_.pass(spread + 1);
  }

  // Messages of one size and tag from several ranks to one, which takes them from whoever comes.
  void post_for_anyone() {
    const auto ranks = static_cast<std::uint64_t>(group_.topology().ranks());
    const auto to = static_cast<int>(dice_.below(ranks));
    const std::size_t bytes = size();
    for (std::uint64_t i = 1 + dice_.below(10); i > 0; --i) {
      const int from = (to + 1 + static_cast<int>(dice_.below(ranks - 1))) % static_cast<int>(ranks);
      Message& message = group_.message(from, to, 77, bytes);
      for_anyone_.push_back(&message);
      group_.clock.after(static_cast<Time>(for_anyone_.size()) * kMs, [this, &message] { group_.post_send(message); });
      group_.clock.after(static_cast<Time>(for_anyone_.size()) * 2 * kMs,
                         [this, &message] { group_.post_receive(message, true); });
    }
    group_.pass(30 * kMs);
  }

  void plan_death() {
    dead_ = static_cast<int>(dice_.below(static_cast<std::uint64_t>(group_.topology().ranks())));
    group_.clock.after(dice_.between(0, 300 * kMs), [this] { group_.die(dead_); });
  }

  void during(Time begin, Time length, const std::function<void()>& breaks, const std::function<void()>& mends) {
    group_.clock.after(begin, breaks);
    group_.clock.after(begin + length, mends);
  }

  void plan_faults() {
    const std::uint64_t count = dice_.below(5);
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto node = static_cast<int>(dice_.below(static_cast<std::uint64_t>(group_.options.nodes)));
      const auto k = static_cast<int>(dice_.below(static_cast<std::uint64_t>(group_.options.nics)));
      Nic* nic = &group_.nic(node, k);
      const double rate = nic->rate;
      const Time begin = dice_.between(0, 600 * kMs);
      switch (dice_.below(7)) {
        case 0:
          during(begin, dice_.between(10 * kMs, 2 * kSecond), [nic] { nic->up = false; }, [nic] { nic->up = true; });
          break;
        case 1:
          during(begin, dice_.between(10 * kMs, 3 * kSecond), [nic] { nic->hears = false; }, [nic] { nic->hears = true; });
          break;
        case 2:
          during(begin, dice_.between(10 * kMs, 3 * kSecond), [nic] { nic->speaks = false; }, [nic] { nic->speaks = true; });
          break;
        case 3:
          during(begin, 3 * kSecond, [nic] { nic->rate /= 8; }, [nic, rate] { nic->rate = rate; });
          break;
        case 4:
          during(begin, 3 * kSecond, [nic] { nic->stalls = 0.05; }, [nic] { nic->stalls = 0; });
          break;
        case 5:  // flaps
          for (Time t = begin; t < begin + 2 * kSecond; t += 300 * kMs)
            during(t, dice_.between(1, 250 * kMs), [nic] { nic->up = false; }, [nic] { nic->up = true; });
          break;
        default: {  // a process that does not run for a while
          const auto rank = static_cast<int>(dice_.below(static_cast<std::uint64_t>(group_.topology().ranks())));
          const Time length = dice_.between(10 * kMs, 2 * kSecond);
          group_.clock.after(begin, [this, rank, length] { group_.process(rank).stopped_until = group_.clock.now() + length; });
        }
      }
    }
  }

  bool idle() {
    for (int rank = 0; rank < group_.topology().ranks(); ++rank)
      if (rank != dead_ && !group_.engine(rank).idle()) return false;
    return true;
  }

  int unfinished() {
    int count = 0;
    for (const Message& message : group_.messages)
      count += (message.send != 0 && !message.sent && message.source != dead_) +
               (message.receive != 0 && !message.received && message.destination != dead_);
    return count;
  }

  void wrong(const std::string& what) { verdict_.wrong.push_back(what); }

  void judge(const Message& message) {
    const std::string name = "message " + std::to_string(message.source) + " -> " + std::to_string(message.destination) +
                             " of " + std::to_string(message.expected.size()) + " bytes";
    const bool misfit = message.in.size() != message.expected.size() || message.receive_type != message.type;
    const bool for_anyone = message.tag == 77;
    const std::string lost = "rank " + std::to_string(dead_) + " ";
    for (const std::optional<Outcome>* outcome : {&message.sent, &message.received}) {
      if (!*outcome) continue;
      const Outcome::Kind kind = (*outcome)->kind;
      const bool told = dead_ >= 0 && kind == Outcome::Kind::peer_lost && (*outcome)->what.starts_with(lost);
      const bool fits = misfit ? kind == Outcome::Kind::invalid : kind == Outcome::Kind::done;
      if (!told && !fits && !(canceled_.contains(&message) && kind == Outcome::Kind::aborted))
        wrong(name + " ended wrongly: " + (*outcome)->what);
    }
    if (message.received && message.received->kind == Outcome::Kind::done && !for_anyone && message.in != message.expected)
      wrong(name + " has wrong bytes");
    if (message.sent && message.sent->kind == Outcome::Kind::done && !for_anyone && message.destination != dead_ &&
        !(message.received && message.received->kind == Outcome::Kind::done))
      wrong(name + " was sent but not received");
  }

  // The n-th receive that met a message of a source met the n-th message of that source.
  void judge_for_anyone() {
    std::map<int, std::size_t> met;
    for (const Message* receive : for_anyone_) {
      if (!receive->received || receive->received->kind != Outcome::Kind::done || receive->destination == dead_) continue;
      const int source = group_.engine(receive->destination).source_of(receive->receive);
      std::size_t skip = met[source]++;
      const auto message = std::find_if(for_anyone_.begin(), for_anyone_.end(),
                                        [&](const Message* m) { return m->source == source && skip-- == 0; });
      if (message == for_anyone_.end() || (*message)->expected != receive->in) wrong("a receive from anyone has wrong bytes");
    }
  }

  void judge() {
    for (const Message& message : group_.messages) {
      verdict_.bytes += message.expected.size();
      judge(message);
    }
    judge_for_anyone();
    if (group_.touched_after_the_end() != 0) wrong("memory was touched after its receive had ended");
    for (const std::string& complaint : group_.complaints) wrong(complaint);
    for (int rank = 0; rank < group_.topology().ranks(); ++rank) {
      if (rank == dead_) continue;
      const Statistics statistics = group_.engine(rank).statistics();
      verdict_.chunks += statistics.chunks_sent;
      verdict_.resent += statistics.chunks_resent;
      verdict_.relayed += statistics.chunks_relayed;
      verdict_.duplicates += statistics.duplicates_dropped;
      verdict_.foreign += statistics.foreign_dropped;
      for (const RailStatistics& rail : statistics.rails) {
        verdict_.downs += rail.times_down;
        if (!rail.up && dead_ < 0) wrong("a rail of rank " + std::to_string(rank) + " is down though its network is well");
      }
      if (group_.process(rank).held_bytes != 0) wrong("rank " + std::to_string(rank) + " holds arrivals at the end");
      if (!group_.engine(rank).idle() && dead_ < 0) wrong("rank " + std::to_string(rank) + " is not idle at the end");
    }
    verdict_.foreign_sent = group_.foreign_sent;
  }

  Dice dice_;
  Group group_;
  Verdict verdict_;
  int dead_ = -1;
  std::set<const Message*> canceled_;
  std::vector<Message*> for_anyone_;
};

}  // namespace virtual_network
