// A packing from the configuration LP: columns are fixed a few at a time, and what is left is solved again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "hetsp/packing/configuration_lp.h"
#include "hetsp/packing/effort.h"
#include "hetsp/packing/item_types.h"
#include "hetsp/packing/order.h"
#include "hetsp/packing/packing.h"
#include "hetsp/packing/refine.h"

namespace hetsp::packing {

// Diving without backtracking (Sadykov et al., INFORMS J. Comput. 31, 2019, with their residual column generation): the whole
// part of every positive column becomes groups; where none has one, the column with the largest x does. Then the needs and the
// budget of ranks have shrunk, and the LP, with new columns that fit the smaller needs, is solved again. Groups go on after the
// ranks are used up; local search (Refine) then wins back those that are missing, for makespans between T and the best known.
class Dive {
 public:
  // The groups' items are indices into `instance`.
  explicit Dive(const Instance& instance);

  // A new dive for packings that end by T or, where ranks are missing, somewhat later, but before `upper`; infinity: whenever.
  // `types` must outlive it.
  void begin(const ItemTypes& types, double T, double upper);
  // Goes on until the effort is spent or the dive is over; then going() is false, and what is returned is a packing or nothing.
  // `lp` prices items as large as the types say or larger, else groups may exceed T and their rooms.
  std::optional<Packing> advance(ConfigurationLp& lp, Effort& effort);
  [[nodiscard]] bool going() const { return stage_ != Stage::done; }

 private:
  enum class Stage { fixing, winning, done };
  bool fix(const ConfigurationLp::Column& column);
  double hopeful_target();
  bool fix_all(ConfigurationLp& lp, Effort& effort);

  Order order_;
  Refine refine_;
  Need need_of_;
  const ItemTypes* types_ = nullptr;
  double T_ = 0.0, upper_ = 0.0;
  Stage stage_ = Stage::done;
  std::vector<Bin> bins_;
  std::vector<std::int32_t> need_;  // [types] items without a group
  std::int32_t budget_ = 0;         // ranks left; negative where they did not do
  double target_ = 0.0;             // seconds, of local search
  int tries_ = 0;
};

}  // namespace hetsp::packing
