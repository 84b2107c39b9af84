// The surrogate bound: time and room of each mode made one constraint, at the mixture that makes the bound largest.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/packing/instance.h"
#include "hetsp/packing/item_types.h"

namespace hetsp::packing {

// Let items be cut into parts, but keep a part of item i out of the modes that do not hold all of it by T (t_k(i) <= T and
// s_i <= room_k). The ranks that this fluid needs are an LP in x_ki (the part of item i in mode k) and y_k (groups):
//
//   min sum_k d_k y_k   subject to   sum_k x_ki >= n_i,   sum_i t_k(i) x_ki <= T y_k,   sum_i s_i x_ki <= room_k y_k.
//
// Its dual mixes the two constraints of a mode by one m_k in [0, 1] (surrogate multipliers: Greenberg and Pierskalla, Oper.
// Res. 18, 1970):
//
//   ranks(T, m) = sum_i n_i min_k d_k ( (1 - m_k) t_k(i) / T  +  m_k s_i / room_k ),
//
// a lower bound of the ranks that any packing by T needs, whatever m is; m = 0 is the area bound (area_bound.h). It is concave
// and piecewise linear in each m_k, where the best value is found by intersecting tangents; going over the modes in turn ends
// near the LP's value, as long as a mode may also rise a little above others that tie with it. Where there are many modes,
// neighbours share one multiplier. For fixed m the largest T that is refuted
// is found by Newton's method: the bound is concave in 1 / T but for jumps where modes open.
class SurrogateBound {
 public:
  // types: their representatives count. Everything begins at m = 0.
  SurrogateBound(const Instance& instance, const ItemTypes& types);

  // More than the instance has refutes T. Infinity where some type does not end by T in any mode.
  [[nodiscard]] double ranks(double T);
  // Raises ranks(T, m) by turns over the modes; returns it. T > 0.
  double ascend(double T);
  // Raises m and T in turn while that pays, from the present m; with raise = false, T alone. Returns the largest makespan below
  // which there is no packing, rounded down by a relative 1e-9, infinity where no makespan is enough. Never falls from one call
  // to the next.
  double makespan(bool raise = true);

  [[nodiscard]] const std::vector<double>& multipliers() const { return m_; }  // [modes] m_k
  void set_multipliers(const std::vector<double>& m) { m_ = m; }
  // What the item adds to ranks(T, m): dual prices for covering by groups that end by T.
  [[nodiscard]] double profit(const Item& item, double T) const;
  [[nodiscard]] std::int64_t work() const { return work_; }  // visits of an item in a mode

 private:
  struct Value {
    double ranks = 0.0, other = 0.0;  // other: the part of `ranks` that is time / T, or the slope in m
  };
  enum class Other { time, slope };
  void lower(std::size_t mode, double m, double T, Other other, double* cost, double* what);
  Value sum(double T);
  double longest_refuted(double from);
  double turn(double T, double ahead);
  Value band(std::size_t b, double m, double T, const double* others);
  void climb(std::size_t b, double T, const double* others);

  std::vector<Mode> modes_;
  double ranks_;
  std::size_t types_;
  std::vector<double> pairs_, tokens_, count_;  // [types]
  std::vector<std::size_t> band_;               // [bands + 1] modes that share a multiplier
  std::vector<double> m_;                       // [modes]
  std::vector<double> cost_, other_, before_, others_;  // [types] scratch
  std::vector<double> band_cost_, after_;       // [bands][types] cheapest in the band; cheapest in the later bands
  double shortest_ = 0.0, proven_ = 0.0;        // seconds: no makespan below is possible
  std::int64_t work_ = 0;
};

// The surrogate bound of all items in seconds, with what belongs to it.
struct SurrogateMakespan {
  double seconds = 0.0;             // as SurrogateBound::makespan()
  std::vector<double> multipliers;  // [modes]
};
// Where there are many types or modes, multipliers are found on rounded types and some of the modes; then `seconds` holds for
// all modes and types as exact as some milliseconds allow.
[[nodiscard]] SurrogateMakespan surrogate_makespan(const Instance& instance);

}  // namespace hetsp::packing
