#include "hetsp/planner/strategies/megatron.h"

#include <algorithm>
#include <deque>

#include "hetsp/base/error.h"

namespace hetsp::planner {

namespace {

constexpr double kDelta = 0.05;       // of the largest load: what counts as balanced
constexpr double kOverfull = 1.1;     // of a bucket's share of the work

double square(std::int64_t tokens) { return static_cast<double>(tokens) * static_cast<double>(tokens); }

// One round: groups under way, and what is left for later rounds.
class Round {
 public:
  Round(const Task& task, const std::vector<int>& order) : task_(task), free_(task.cluster.ranks) {
    for (const int s : order) needed_.push_back(power_of_two_degree(task, task.sequences[s].tokens));
    fill_buckets(order);
  }

  void run() {
    int previous = 0;
    bool smaller_came_up = false;
    while (const auto bucket = next_bucket()) {
      const auto [s, needed] = bucket->front();
      bucket->pop_front();
      if (previous == 0) previous = needed;
      assign(s, needed);
      std::erase_if(buckets_, [](const auto& b) { return b.empty(); });
      smaller_came_up |= needed < previous;
      if (smaller_came_up && !buckets_.empty() && free_ == 0 && highest() - lowest() <= kDelta * highest()) break;
    }
    for (const auto& b : buckets_)
      for (const auto& waiting : b) left_.push_back(waiting.first);
    trim();
    fill_idle_ranks();
  }

  [[nodiscard]] std::vector<DraftGroup> groups() const {
    std::vector<DraftGroup> result;
    for (const auto& g : groups_)
      result.push_back({.kind = g.degree == 1 ? Kind::whole : Kind::ring, .degree = g.degree, .sequences = g.sequences});
    return result;
  }
  [[nodiscard]] const std::vector<int>& left() const { return left_; }

 private:
  struct Member {
    int degree;
    double load = 0.0;
    std::int64_t tokens = 0;
    std::vector<int> sequences{};
  };
  using Bucket = std::deque<std::pair<int, int>>;  // (sequence, ranks it needs)

  // As many buckets as there are degrees, of about equal work, in the order given.
  void fill_buckets(const std::vector<int>& order) {
    std::vector<int> degrees = needed_;
    std::sort(degrees.begin(), degrees.end());
    const auto count = static_cast<std::size_t>(std::unique(degrees.begin(), degrees.end()) - degrees.begin());
    double total = 0.0, current = 0.0;
    for (std::size_t i = 0; i < order.size(); ++i) total += work(order[i], needed_[i]);
    const double target = total / static_cast<double>(count);
    Bucket bucket;
    for (std::size_t i = 0; i < order.size(); ++i) {
      const double next = work(order[i], needed_[i]);
      if (!bucket.empty() && (current + next > target * kOverfull || order.size() - i + buckets_.size() <= count)) {
        buckets_.push_back(std::move(bucket));
        bucket = {}, current = 0.0;
      }
      bucket.emplace_back(order[i], needed_[i]);
      current += next;
    }
    if (!bucket.empty()) buckets_.push_back(std::move(bucket));
  }

  [[nodiscard]] double work(int s, int degree) const { return square(task_.sequences[s].tokens) / degree; }

  [[nodiscard]] bool holds(const Member& group, int s) const {
    return group.tokens + task_.sequences[s].tokens <= task_.modes.room(group.degree);
  }

  Bucket* next_bucket() {
    for (Bucket& bucket : buckets_) {
      const auto [s, needed] = bucket.front();
      const int sequence = s, degree = needed;
      if (free_ >= needed || std::any_of(groups_.begin(), groups_.end(),
                                         [&](const Member& g) { return g.degree == degree && holds(g, sequence); }))
        return &bucket;
    }
    return nullptr;
  }

  void assign(int s, int needed) {
    Member* best = nullptr;
    for (Member& group : groups_)
      if (group.degree == needed && holds(group, s) && (best == nullptr || group.load < best->load)) best = &group;
    // A new group starts empty, so it wins wherever there are free ranks.
    if (free_ >= needed && (best == nullptr || best->load > 0.0)) {
      free_ -= needed;
      best = &groups_.emplace_back(Member{.degree = needed});
    }
    best->load += work(s, needed);
    best->tokens += task_.sequences[s].tokens;
    best->sequences.push_back(s);
  }

  [[nodiscard]] double highest() const { return most_loaded()->load; }
  [[nodiscard]] double lowest() const {
    if (free_ > 0) return 0.0;
    double least = groups_.front().load;
    for (const Member& group : groups_) least = std::min(least, group.load);
    return least;
  }
  [[nodiscard]] std::vector<Member>::const_iterator most_loaded() const {
    return std::max_element(groups_.begin(), groups_.end(), [](const auto& a, const auto& b) { return a.load < b.load; });
  }

  void trim() {
    while (lowest() > 0.0 && highest() - lowest() > kDelta * highest()) {
      const double slack = highest() - lowest();
      Member& group = groups_[most_loaded() - groups_.begin()];
      if (group.sequences.size() <= 1) return;
      const int s = group.sequences.back();
      const double load = work(s, group.degree);
      group.load -= load;
      if (highest() - lowest() >= slack) {
        group.load += load;
        return;
      }
      group.sequences.pop_back();
      group.tokens -= task_.sequences[s].tokens;
      left_.push_back(s);
    }
  }

  void fill_idle_ranks() {
    while (free_ > 0) {
      Member* smallest = nullptr;
      for (Member& group : groups_)
        if (smallest == nullptr || group.degree < smallest->degree) smallest = &group;
      const int wider = std::min(2 * smallest->degree, task_.cluster.ranks);
      if (wider - smallest->degree > free_ || task_.modes.find(Kind::ring, wider) == nullptr) return;
      free_ -= wider - smallest->degree;
      smallest->load *= static_cast<double>(smallest->degree) / wider;
      smallest->degree = wider;
    }
  }

  const Task& task_;
  std::int32_t free_;
  std::vector<int> needed_;  // [order] ranks by memory
  std::vector<Bucket> buckets_;
  std::vector<Member> groups_;
  std::vector<int> left_;
};

}  // namespace

Draft draft_megatron_dynamic(const Task& task) {
  (void)require_mode(task, Kind::ring, task.modes.max_degree());
  Draft draft;
  auto order = by_falling_tokens(task.sequences);
  while (!order.empty()) {
    Round round(task, order);
    round.run();
    draft.micro_batches.push_back(round.groups());
    invariant(round.left().size() < order.size(), "a round took none of ", order.size(), " sequences");
    order = round.left();
  }
  return draft;
}

}  // namespace hetsp::planner
