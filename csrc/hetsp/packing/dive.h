// A packing from the configuration LP: columns are fixed a few at a time, and what is left is solved again.
#pragma once

#include <optional>

#include "hetsp/packing/configuration_lp.h"
#include "hetsp/packing/effort.h"
#include "hetsp/packing/item_types.h"
#include "hetsp/packing/packing.h"

namespace hetsp::packing {

// Diving without backtracking (Sadykov et al., INFORMS J. Comput. 31, 2019, with their residual column generation): the whole
// part of every positive column becomes groups; where none has one, the column with the largest x does. Then the needs and the
// budget of ranks have shrunk, and the LP, with new columns that fit the smaller needs, is solved again. Items that are left
// when the budget does not do go where they end earliest, so the makespan may exceed T. `lp` prices items as large as `types`
// says or larger, else groups may exceed T and their rooms; those lose items to the same repair. Empty where something found no
// room.
[[nodiscard]] std::optional<Packing> dive(const Instance& instance, const ItemTypes& types, ConfigurationLp& lp, double T,
                                          Effort& effort);

}  // namespace hetsp::packing
