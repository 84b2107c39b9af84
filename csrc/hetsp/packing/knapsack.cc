#include "hetsp/packing/knapsack.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace hetsp::packing {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kSlack = 1e-12;            // relative, of T
constexpr int kLooks = 12;                  // relaxations looked at for the best m
constexpr double kLarge = 1.0 / 32;         // part of T or S from which taking an item in parts costs too much
constexpr std::int64_t kSoon = 1500;        // visits after which cuts are worth their making
constexpr std::size_t kTableSize = 1 << 16; // cells times large items
constexpr std::size_t kFewCells = 512, kManyCells = 4096;
constexpr std::int64_t kPerVisit = 16;      // cells per visit
constexpr std::size_t kCuts = 48;           // at most; then the oldest but the first is replaced
constexpr std::int64_t kRelaxWork = 1;      // visits that one LP relaxation counts, per entry
constexpr double kClear = 1e-3;             // relative: an entry that much too dear is not in the LP relaxation
constexpr double kAhead = 1e-3;             // relative: so much better must another open choice be to be turned to
constexpr std::int64_t kSmallVisits = 200;  // of small items below one choice of large ones

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
    const auto part = [&](const Entry& e) { return std::max(T_ > 0.0 ? e.seconds / T_ : 0.0, S_ > 0.0 ? e.tokens / S_ : 0.0); };
    const auto small =
        std::stable_partition(entries_.begin(), entries_.end(), [&](const Entry& e) { return part(e) >= kLarge; });
    std::sort(entries_.begin(), small, [&](const Entry& a, const Entry& b) {
      const double first = part(a), second = part(b);
      return first != second ? first > second : a.id < b.id;
    });
    large_ = static_cast<std::size_t>(small - entries_.begin());
    cut_count_ = 0;
    tabulate();
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

// Row large_: the small entries in parts, in as much weight as may really be left where c cells are: less than (c + 1) / cells.
// Row j: U_j(c) = max over x of x p_j + U_{j+1}(c - x w_j), the count split into 1 + 2 + 4 + ... so that few passes do.
void Knapsack::tabulate() {
  Table& table = table_;
  small_.set(m_, T_, S_);
  order_small(small_);
  table.per_second = small_.per_second, table.per_token = small_.per_token;
  table.cells = static_cast<int>(std::clamp<std::size_t>(kTableSize / (large_ + 1), kFewCells, kManyCells));
  const int cells = table.cells;
  const std::size_t width = static_cast<std::size_t>(cells) + 1;
  table.best.resize((large_ + 1) * width);
  int sums = 2;
  for (std::size_t j = 0; j < large_; ++j) sums += std::bit_width(static_cast<std::uint32_t>(entries_[j].count));
  const float rounded_up = 1.0f + 1.2e-7f * static_cast<float>(sums);  // covers as many float sums
  float* row = table.best.data() + large_ * width;
  for (int c = 0; c <= cells; ++c) row[c] = static_cast<float>(small_.fractional(0, (c + 1.0) / cells)) * rounded_up;
  for (std::size_t j = large_; j-- > 0; row -= width) {
    float* next = row - width;
    std::copy(row, row + width, next);
    for (std::int32_t rest = entries_[j].count, step = 1; rest > 0; rest -= step, step *= 2) {
      step = std::min(step, rest);
      const double weight = step * small_.weight(entries_[j]) * cells;
      if (weight > cells) break;
      const int shift = static_cast<int>(weight);
      const float gain = static_cast<float>(step * entries_[j].profit) * rounded_up;
      for (int c = cells; c >= shift; --c) next[c] = std::max(next[c], next[c - shift] + gain);
    }
  }
  work_ += static_cast<std::int64_t>(table.best.size()) / kPerVisit;
}

void Knapsack::add_cut(double per_second, double per_token) {
  std::size_t at = cut_count_;
  if (cut_count_ < kCuts) {
    if (cuts_.size() < ++cut_count_) cuts_.emplace_back();
  } else {
    at = oldest_;
    oldest_ = oldest_ + 1 < kCuts ? oldest_ + 1 : 1;
  }
  Cut& cut = cuts_[at];
  cut.per_second = per_second, cut.per_token = per_token;
  cut.rest.resize(large_ + 1);
  double sum = cut.rest[large_] = 0.0;
  for (std::size_t i = entries_.size(); i-- > 0;) {
    const Entry& e = entries_[i];
    sum += e.count * std::max(0.0, e.profit - per_second * e.seconds - per_token * e.tokens);
    if (i <= large_) cut.rest[i] = sum;
  }
}

// The LP relaxation of what a choice leaves; its prices become a cut.
double Knapsack::relax(Choice& choice) {
  relaxation_.clear();
  for (auto i = static_cast<std::size_t>(choice.next); i < entries_.size(); ++i) {
    const Entry& e = entries_[i];
    if (e.seconds > choice.state.seconds || e.tokens > choice.state.tokens) continue;
    const std::int32_t had = i == static_cast<std::size_t>(choice.next) ? choice.had : 0;
    relaxation_.add(e.profit, e.seconds, e.tokens, e.count - had);
  }
  const double m = choice.m < 0.0 ? m_ : choice.m;
  const double rest = relaxation_.solve(T_, S_, choice.state.seconds, choice.state.tokens, m, best_ - choice.state.gain);
  choice.relaxed = true, choice.m = relaxation_.mixture();
  choice.per_second = relaxation_.per_second(), choice.per_token = relaxation_.per_token();
  work_ += kRelaxWork * static_cast<std::int64_t>(entries_.size());
  add_cut(choice.per_second, choice.per_token);
  return choice.state.gain + rest;
}

void Knapsack::take(State& state, std::size_t entry, std::int32_t times) {
  taken_[entry] += times;
  state.seconds -= times * entries_[entry].seconds, state.tokens -= times * entries_[entry].tokens;
  state.gain += times * entries_[entry].profit;
}

// What large entries from `from` on and small ones can add at most.
double Knapsack::rest(std::size_t from, const State& state) const {
  const double left = table_.per_second * state.seconds + table_.per_token * state.tokens;
  const int cell = std::clamp(static_cast<int>((left + kSlack) * table_.cells), 0, table_.cells);
  double bound = table_.best[from * static_cast<std::size_t>(table_.cells + 1) + static_cast<std::size_t>(cell)];
  for (std::size_t c = 0; c < cut_count_; ++c) {
    const Cut& cut = cuts_[c];
    bound = std::min(bound, cut.per_second * state.seconds + cut.per_token * state.tokens + cut.rest[from]);
  }
  return bound;
}

void Knapsack::record(double gain) {
  profit_ = best_ = gain;
  Fill& fill = fills_.emplace_back();
  for (std::size_t j = 0; j < entries_.size(); ++j)
    if (taken_[j] > 0) fill.emplace_back(entries_[j].id, taken_[j]);
}

// Choices of large entries by falling bound, each extended at once along its better side. A choice whose bound by cuts is not
// enough has its LP relaxation solved before it is branched on.
void Knapsack::best_first(std::int64_t limit) {
  choices_.clear(), heap_.clear();
  const auto fits = [&](const Choice& c) {
    const Entry& entry = entries_[c.next];
    return c.had < entry.count && entry.seconds <= c.state.seconds && entry.tokens <= c.state.tokens;
  };
  const auto skip = [&](Choice& c) {
    while (c.next < static_cast<std::int32_t>(large_) && !fits(c)) ++c.next, c.had = 0;
  };
  const auto open = [&](const Choice& choice) {
    if (choice.bound <= best_) return;
    heap_.emplace_back(choice.bound, static_cast<std::int32_t>(choices_.size()));
    choices_.push_back(choice);
    std::push_heap(heap_.begin(), heap_.end());
  };
  Choice root{kInfinity, {T_, S_, 0.0}, 0, 0, -1, -1};
  skip(root);
  open(root);
  for (const std::int64_t until = work_ + limit; !heap_.empty() && heap_.front().first > best_;) {
    if (work_ > until) {
      open_ = std::max(open_, heap_.front().first);
      return;
    }
    std::int32_t at = heap_.front().second;
    std::pop_heap(heap_.begin(), heap_.end());
    heap_.pop_back();
    while (at >= 0) {
      ++work_;
      Choice& choice = choices_[at];
      choice.bound = std::min(choice.bound, choice.state.gain + rest(choice.next, choice.state));
      if (choice.bound > best_ && !choice.relaxed) choice.bound = std::min(choice.bound, relax(choice));
      if (choice.bound <= best_) break;
      if (!heap_.empty() && choice.bound < (1.0 - kAhead) * heap_.front().first) {
        heap_.emplace_back(choice.bound, at);
        std::push_heap(heap_.begin(), heap_.end());
        break;
      }
      if (choice.next == static_cast<std::int32_t>(large_)) {
        complete(choice);
        break;
      }
      const Entry& entry = entries_[choice.next];
      Choice without = choice, with = choice;
      ++without.next, without.had = 0;
      // What the LP relaxation leaves out does not change it when it is gone.
      without.relaxed = entry.profit < (1.0 - kClear) * (choice.per_second * entry.seconds + choice.per_token * entry.tokens);
      with.state = {choice.state.seconds - entry.seconds, choice.state.tokens - entry.tokens, choice.state.gain + entry.profit};
      with.relaxed = false, ++with.had, with.parent = at, with.taken = choice.next;
      for (Choice* c : {&without, &with}) {
        skip(*c);
        c->bound = std::min(choice.bound, c->state.gain + rest(c->next, c->state));
      }
      const bool prefers_with = with.bound >= without.bound;
      open(prefers_with ? without : with);
      const Choice& further = prefers_with ? with : without;
      at = further.bound > best_ ? static_cast<std::int32_t>(choices_.size()) : -1;
      if (at >= 0) choices_.push_back(further);
    }
  }
}

// Adds small entries to a choice of large ones, in the order of the prices that bound them best.
void Knapsack::complete(const Choice& choice) {
  const Cut* best = nullptr;
  double least = kInfinity;
  for (std::size_t c = 0; c < cut_count_; ++c) {
    const Cut& cut = cuts_[c];
    const double bound = cut.per_second * choice.state.seconds + cut.per_token * choice.state.tokens + cut.rest[large_];
    if (bound < least) least = bound, best = &cut;
  }
  const double weight = best->per_second * T_ + best->per_token * S_;
  small_.set(weight > 0.0 ? best->per_token * S_ / weight : m_, T_, S_);
  order_small(small_);
  taken_.assign(entries_.size(), 0);
  for (const Choice* c = &choice; c->taken >= 0; c = &choices_[c->parent]) ++taken_[c->taken];
  depth_first(small_, choice.state, kSmallVisits, choice.bound);
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
