#include "hetsp/packing/knapsack.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hetsp::packing {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kSlack = 1e-12;            // relative, of T
constexpr int kLooks = 12;                  // relaxations looked at for the best m
constexpr double kLarge = 1.0 / 32;         // weight from which rounding to cells costs less than taking parts
constexpr std::int64_t kSoon = 1500;        // visits after which the tables are worth their making
constexpr std::int64_t kSmallVisits = 200;  // of small items below one choice of large ones
constexpr float kRounding = 1.0f + 4e-6f;   // covers float sums of the at most 32 large items of a fill

// Whole times that `part` goes into `whole`, at most `count`.
std::int32_t times(double whole, double part, std::int32_t count) {
  return part * count <= whole ? count : static_cast<std::int32_t>(whole / part);
}

double density(double profit, double weight) { return weight > 0.0 ? profit / weight : kInfinity; }

}  // namespace

void Knapsack::Mixture::set(double mixture, double T, double S) {
  m = mixture, per_second = T > 0.0 ? (1.0 - m) / T : 0.0, per_token = S > 0.0 ? m / S : 0.0;
}

// The fill of `weight` with the order's entries from `from` on, the last one in part.
double Knapsack::Mixture::fractional(std::size_t from, double weight) const {
  const double until = weight_before[from] + weight;
  const auto end = std::upper_bound(weight_before.begin() + static_cast<std::ptrdiff_t>(from) + 1, weight_before.end(), until);
  const auto j = static_cast<std::size_t>(end - weight_before.begin()) - 1;  // whole counts of from..j-1
  const double whole = profit_before[j] - profit_before[from];
  if (end == weight_before.end()) return whole;
  return whole +
         (until - weight_before[j]) * density(profit_before[j + 1] - profit_before[j], weight_before[j + 1] - weight_before[j]);
}

void Knapsack::solve(const std::vector<KnapsackItem>& items, double T, double S, double threshold, std::int64_t work) {
  T_ = T * (1.0 + kSlack), S_ = S;
  fills_.clear(), entries_.clear();
  profit_ = 0.0, best_ = upper_bound_ = open_ = threshold, work_ = 0;
  for (const KnapsackItem& item : items) {
    if (item.profit <= 0.0 || item.seconds > T_ || item.tokens > S_) continue;
    const auto count = std::min(times(T_, item.seconds, item.count), times(S_, item.tokens, item.count));
    entries_.push_back({0.0, 0.0, item.profit, item.seconds, item.tokens, count, item.id});
  }
  if (entries_.empty() || best_mixture() <= threshold) return;
  large_ = 0;
  order_small(main_);
  taken_.assign(entries_.size(), 0);
  if (!depth_first(main_, {T_, S_, 0.0}, std::min(work, kSoon), kInfinity) && work > kSoon) {
    const auto small =
        std::stable_partition(entries_.begin(), entries_.end(), [](const Entry& e) { return e.weight >= kLarge; });
    std::sort(entries_.begin(), small,
              [](const Entry& a, const Entry& b) { return a.weight != b.weight ? a.weight > b.weight : a.id < b.id; });
    large_ = static_cast<std::size_t>(small - entries_.begin());
    const double around[kMixtures] = {0.0, 0.5 * m_, m_, 0.5 * (1.0 + m_), 1.0};
    for (int i = 0; i < kMixtures; ++i) {
      mixtures_[i].set(around[i], T_, S_);
      order_small(mixtures_[i]);
      tabulate(mixtures_[i]);
    }
    open_ = threshold;
    best_first(work);
  }
  upper_bound_ = std::max(best_, open_);
}

// Weights and densities for m, entries sorted; the fractional fill of everything.
double Knapsack::relaxation(double m) {
  main_.set(m, T_, S_);
  for (Entry& entry : entries_) {
    entry.weight = main_.weight(entry);
    entry.density = density(entry.profit, entry.weight);
  }
  std::sort(entries_.begin(), entries_.end(),
            [](const Entry& a, const Entry& b) { return a.density != b.density ? a.density > b.density : a.id < b.id; });
  work_ += static_cast<std::int64_t>(entries_.size());
  double left = 1.0, profit = 0.0;
  for (const Entry& entry : entries_) {
    const double weight = entry.weight * entry.count;
    if (weight > left) return profit + left * entry.density;
    left -= weight, profit += entry.profit * entry.count;
  }
  return profit;
}

// Walks from the last best m to one with the least relaxation, which it returns; entries are left in the order of that m.
double Knapsack::best_mixture() {
  double value = relaxation(m_), step = 0.25;
  for (int looks = 1; looks < kLooks && value > best_ && step > 1e-3;) {
    bool better = false;
    for (const double next : {m_ + step, m_ - step}) {
      if (better || next < 0.0 || next > 1.0) continue;
      ++looks;
      if (const double there = relaxation(next); there < value) m_ = next, value = there, better = true;
    }
    if (!better) step *= 0.4;
  }
  return main_.m == m_ ? value : relaxation(m_);
}

void Knapsack::order_small(Mixture& mixture) {
  densities_.clear();
  for (std::size_t e = large_; e < entries_.size(); ++e)
    densities_.emplace_back(-density(entries_[e].profit, mixture.weight(entries_[e])), static_cast<std::int32_t>(e));
  std::sort(densities_.begin(), densities_.end());
  const std::size_t n = densities_.size();
  mixture.order.clear();
  mixture.profit_before.assign(n + 1, 0.0), mixture.weight_before.assign(n + 1, 0.0);
  mixture.least_seconds.assign(n + 1, kInfinity), mixture.least_tokens.assign(n + 1, kInfinity);
  for (std::size_t k = 0; k < n; ++k) {
    const Entry& entry = entries_[densities_[k].second];
    mixture.order.push_back(densities_[k].second);
    mixture.profit_before[k + 1] = mixture.profit_before[k] + entry.profit * entry.count;
    mixture.weight_before[k + 1] = mixture.weight_before[k] + mixture.weight(entry) * entry.count;
  }
  for (std::size_t k = n; k-- > 0;) {
    mixture.least_seconds[k] = std::min(mixture.least_seconds[k + 1], entries_[mixture.order[k]].seconds);
    mixture.least_tokens[k] = std::min(mixture.least_tokens[k + 1], entries_[mixture.order[k]].tokens);
  }
}

// Row large_: the small entries in parts, in as much weight as may really be left where c cells are: less than (c + 1) /
// kCells. Row j: U_j(c) = max over x of x p_j + U_{j+1}(c - x w_j), the count split into 1 + 2 + 4 + ... so that few passes do.
void Knapsack::tabulate(Mixture& mixture) {
  constexpr int kRow = kCells + 1;
  mixture.table.resize((large_ + 1) * kRow);
  float* row = mixture.table.data() + large_ * kRow;
  for (int c = 0; c < kRow; ++c) row[c] = static_cast<float>(mixture.fractional(0, (c + 1.0) / kCells)) * kRounding;
  for (std::size_t j = large_; j-- > 0; row -= kRow) {
    float* next = row - kRow;
    std::copy(row, row + kRow, next);
    const Entry& entry = entries_[j];
    for (std::int32_t rest = entry.count, step = 1; rest > 0; rest -= step, step *= 2) {
      step = std::min(step, rest);
      const int shift = static_cast<int>(step * mixture.weight(entry) * kCells);
      const float gain = static_cast<float>(step * entry.profit) * kRounding;
      for (int c = kCells; c >= shift; --c) next[c] = std::max(next[c], next[c - shift] + gain);
    }
  }
  work_ += static_cast<std::int64_t>(large_) * 32;
}

void Knapsack::take(State& state, std::size_t entry, std::int32_t times) {
  taken_[entry] += times;
  state.seconds -= times * entries_[entry].seconds, state.tokens -= times * entries_[entry].tokens;
  state.gain += times * entries_[entry].profit;
}

// What large entries from `from` on and small ones can add at most.
double Knapsack::rest(std::size_t from, const State& state) const {
  double bound = kInfinity;
  for (const Mixture& mixture : mixtures_) {
    const int cell = std::clamp(static_cast<int>((mixture.left(state) + kSlack) * kCells), 0, kCells);
    bound = std::min(bound, static_cast<double>(mixture.table[from * (kCells + 1) + static_cast<std::size_t>(cell)]));
  }
  return bound;
}

void Knapsack::record(double gain) {
  profit_ = best_ = gain;
  Fill& fill = fills_.emplace_back();
  for (std::size_t j = 0; j < entries_.size(); ++j)
    if (taken_[j] > 0) fill.emplace_back(entries_[j].id, taken_[j]);
}

// Choices of large entries by falling bound, each extended at once along its better side.
void Knapsack::best_first(std::int64_t limit) {
  choices_.clear(), heap_.clear();
  const State empty{T_, S_, 0.0};
  const auto open = [&](const Choice& choice) {
    if (choice.bound <= best_) return;
    heap_.emplace_back(choice.bound, static_cast<std::int32_t>(choices_.size()));
    choices_.push_back(choice);
    std::push_heap(heap_.begin(), heap_.end());
  };
  open({rest(0, empty), empty, 0, 0, -1, -1});
  for (const std::int64_t until = work_ + limit; !heap_.empty() && heap_.front().first > best_;) {
    if (work_ > until) {
      open_ = std::max(open_, heap_.front().first);
      return;
    }
    std::int32_t at = heap_.front().second;
    std::pop_heap(heap_.begin(), heap_.end());
    heap_.pop_back();
    while (choices_[at].next < static_cast<std::int32_t>(large_)) {
      ++work_;
      const Choice choice = choices_[at];
      const Entry& entry = entries_[choice.next];
      Choice without{0.0, choice.state, choice.next + 1, 0, choice.parent, choice.taken},
          with{-1.0, choice.state, choice.next, choice.had + 1, at, choice.next};
      without.bound = choice.state.gain + rest(choice.next + 1, choice.state);
      if (choice.had < entry.count && entry.seconds <= choice.state.seconds && entry.tokens <= choice.state.tokens) {
        with.state = {choice.state.seconds - entry.seconds, choice.state.tokens - entry.tokens,
                      choice.state.gain + entry.profit};
        with.bound = with.state.gain + rest(choice.next, with.state);
      }
      const bool prefers_with = with.bound >= without.bound;
      open(prefers_with ? without : with);
      const Choice& further = prefers_with ? with : without;
      if (further.bound <= best_) break;
      at = static_cast<std::int32_t>(choices_.size());
      choices_.push_back(further);
    }
    if (choices_[at].next == static_cast<std::int32_t>(large_)) complete(choices_[at]);
  }
}

// Adds small entries to a choice of large ones, in the order of the m that bounds them best.
void Knapsack::complete(const Choice& choice) {
  const Mixture* best = nullptr;
  double least = kInfinity;
  for (const Mixture& mixture : mixtures_)
    if (const double bound = mixture.fractional(0, mixture.left(choice.state) + kSlack); bound < least)
      least = bound, best = &mixture;
  if (choice.state.gain + least <= best_) return;
  taken_.assign(entries_.size(), 0);
  for (const Choice* c = &choice; c->taken >= 0; c = &choices_[c->parent]) ++taken_[c->taken];
  depth_first(*best, choice.state, kSmallVisits, choice.state.gain + least);
}

// Entries of the mixture's order on top of what is taken. False where `limit` visits were not enough: the branches given up
// have raised open_, to `ceiling` at most, which bounds them all.
bool Knapsack::depth_first(const Mixture& mixture, State state, std::int64_t limit, double ceiling) {
  const std::size_t n = mixture.order.size();
  const auto bound = [&](std::size_t k) { return state.gain + mixture.fractional(k, mixture.left(state) + kSlack); };
  std::int64_t visits = 0;
  bool finished = true;
  for (std::size_t k = 0;;) {
    bool promising = true;
    while (k < n && state.seconds >= mixture.least_seconds[k] && state.tokens >= mixture.least_tokens[k]) {
      promising = bound(k) > best_;
      if (!promising) break;
      ++visits;
      const Entry& entry = entries_[mixture.order[k]];
      const auto most =
          std::min(times(state.seconds, entry.seconds, entry.count), times(state.tokens, entry.tokens, entry.count));
      if (most > 0) take(state, mixture.order[k], most);
      ++k;
    }
    if (promising && state.gain > best_) record(state.gain);
    // Back to the last entry of which one less may still win; where it cannot, two less cannot either.
    for (;;) {
      while (k > 0 && taken_[mixture.order[k - 1]] == 0) --k;
      if (k == 0) {
        work_ += visits;
        return finished;
      }
      const std::int32_t last = mixture.order[k - 1];
      take(state, last, -1);
      const double above = bound(k);
      if (above > best_ && visits <= limit) break;
      if (above > best_) open_ = std::max(open_, std::min(above, ceiling)), finished = false;
      take(state, last, -taken_[last]);
    }
  }
}

}  // namespace hetsp::packing
