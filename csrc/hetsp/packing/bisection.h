// Proof and packings from the configuration LP, one makespan after the other.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "hetsp/packing/configuration_lp.h"
#include "hetsp/packing/dive.h"
#include "hetsp/packing/effort.h"
#include "hetsp/packing/instance.h"
#include "hetsp/packing/item_types.h"
#include "hetsp/packing/packing.h"

namespace hetsp::packing {

// Keeps  lower() <= optimum  and a makespan `above_` that the LP does not refute, and halves what lies between. Items of nearly
// equal size are one type at first (rounded down, so that what is proven stays true); once nothing lies between, types get
// finer until they are exact. Wherever the LP does not refute, a dive (dive.h) tries to round it to a packing.
class Bisection {
 public:
  explicit Bisection(const Instance& instance);

  // A packing from elsewhere: its groups, as far as they end by the makespans that are looked at, become columns.
  void offer(const Packing& packing);

  // Goes on until the effort is spent, nothing is left to do (done()), or lower() reaches `upper` / (1 + gap) where `upper` is
  // the makespan of the best packing known. Returns the best packing that dives found this time, where it is below `upper`.
  std::optional<Packing> advance(Effort& effort, double upper, double gap);

  [[nodiscard]] double lower() const { return lower_; }  // seconds; no packing is shorter
  [[nodiscard]] bool done() const { return done_; }

 private:
  struct Level {  // one width of the types
    Level(const Instance& instance, double width);
    ItemTypes types;
    ConfigurationLp bound;                   // of the least members: what it refutes is refuted
    std::unique_ptr<ConfigurationLp> plans;  // of the largest members, where types are not exact: what it packs fits
    std::vector<std::int32_t> type_of;       // [items]
    bool offered = false;                    // offered_ has become columns
  };
  void use_offer(double T);
  void probe(Effort& effort, double T);
  bool refine();
  void cash_in(double T);
  void dive_later(double T);
  void begin_dive(double T);
  void dive(Effort& effort);

  const Instance& instance_;
  std::vector<double> widths_;  // of the types, still to come
  Dive dive_;
  std::unique_ptr<Level> level_;
  double lower_ = 0.0, above_ = 0.0, best_ = 0.0;
  double dive_below_ = 0.0, dive_above_ = 0.0;  // makespans between which dives still look
  double dived_ = 0.0, best_before_ = 0.0;      // where the present dive began
  std::int64_t finest_;                         // visits of an item by one pricing
  double probed_ = 0.0;     // the makespan whose probe was cut off
  double cash_ = 1.0;       // of the way from lower() to what that probe may have refuted
  double later_ = 0.0;      // where the last dive before a verdict began
  std::int64_t since_ = 0;  // work of the LP when it began
  bool unsure_ = false, done_ = false;  // unsure_: some makespan was neither refuted nor feasible
  std::vector<double> multipliers_;  // [modes] of the surrogate bound
  std::vector<Bin> offered_;
  std::optional<Packing> found_;
};

}  // namespace hetsp::packing
