#include "hetsp/comm/matcher.h"

#include <algorithm>
#include <iterator>

namespace hetsp::comm {

std::vector<Matcher::Match> Matcher::arrive(Offered offer) {
  std::vector<Match> found;
  const auto source = static_cast<std::size_t>(offer.source);
  if (seen(offer.source, offer.transfer)) return found;
  auto& early = early_[source];
  early.emplace(offer.transfer, std::move(offer));
  while (!early.empty() && early.begin()->first == next_[source]) {
    Offered next = std::move(early.begin()->second);
    early.erase(early.begin());
    ++next_[source];
    if (auto met = match(next)) found.push_back(std::move(*met));
  }
  return found;
}

std::optional<Matcher::Match> Matcher::match(Offered& offer) {
  Tag& tag = tags_[offer.tag];
  const auto receive = std::find_if(tag.receives.begin(), tag.receives.end(), [&](const Posted& posted) {
    return posted.peer == offer.source || posted.peer == any_source;
  });
  if (receive == tag.receives.end()) {
    tag.offers.push_back(std::move(offer));
    return std::nullopt;
  }
  Match met{std::move(offer), *receive};
  receives_.erase(receive->operation);
  tag.receives.erase(receive);
  if (tag.receives.empty() && tag.offers.empty()) tags_.erase(met.first.tag);
  return met;
}

std::optional<Matcher::Match> Matcher::post(const Posted& receive) {
  Tag& tag = tags_[receive.tag];
  const auto offer = std::find_if(tag.offers.begin(), tag.offers.end(), [&](const Offered& offered) {
    return receive.peer == offered.source || receive.peer == any_source;
  });
  if (offer == tag.offers.end()) {
    tag.receives.push_back(receive);
    receives_.emplace(receive.operation, receive.tag);
    return std::nullopt;
  }
  Match met{std::move(*offer), receive};
  tag.offers.erase(offer);
  if (tag.receives.empty() && tag.offers.empty()) tags_.erase(receive.tag);
  return met;
}

bool Matcher::seen(int source, std::uint64_t transfer) const {
  const auto from = static_cast<std::size_t>(source);
  return transfer < next_[from] || early_[from].contains(transfer);
}

void Matcher::cancel(int source, std::uint64_t transfer) {
  const auto from = static_cast<std::size_t>(source);
  if (const auto early = early_[from].find(transfer); early != early_[from].end()) {
    early->second.canceled = true;
    return;
  }
  for (auto& [_, tag] : tags_)
    for (Offered& offer : tag.offers)
      if (offer.source == source && offer.transfer == transfer) offer.canceled = true;
}

std::optional<Posted> Matcher::withdraw(Operation operation) {
  const auto known = receives_.find(operation);
  if (known == receives_.end()) return std::nullopt;
  const auto tag = tags_.find(known->second);
  const auto receive = std::find_if(tag->second.receives.begin(), tag->second.receives.end(),
                                    [&](const Posted& posted) { return posted.operation == operation; });
  const Posted posted = *receive;
  tag->second.receives.erase(receive);
  if (tag->second.receives.empty() && tag->second.offers.empty()) tags_.erase(tag);
  receives_.erase(known);
  return posted;
}

void Matcher::refuse(const Posted& withdrawn) {
  tags_[withdrawn.tag].receives.push_back({.operation = 0, .peer = withdrawn.peer, .tag = withdrawn.tag});
}

std::vector<Posted> Matcher::withdraw_all() {
  std::vector<Posted> all;
  for (auto& [_, tag] : tags_) {
    std::copy_if(tag.receives.begin(), tag.receives.end(), std::back_inserter(all),
                 [](const Posted& posted) { return posted.operation != 0; });
    tag.receives.clear();
  }
  std::erase_if(tags_, [](const auto& entry) { return entry.second.offers.empty(); });
  receives_.clear();
  return all;
}

std::vector<Posted> Matcher::withdraw_from(int source) {
  std::vector<Posted> found;
  for (const auto& [_, tag] : tags_)
    for (const Posted& posted : tag.receives)
      if (posted.peer == source && posted.operation != 0) found.push_back(posted);
  for (const Posted& posted : found) withdraw(posted.operation);
  return found;
}

}  // namespace hetsp::comm
