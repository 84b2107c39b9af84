// What an engine knows, in words, for a person who wants to know why a job stands still.
#pragma once

#include <string>

#include "hetsp/comm/endpoint.h"

namespace hetsp::comm {

// The operations that are open, since when and how far each is; every link and what is not confirmed on it; room lent and
// borrowed. Reads alone.
class Report {
 public:
  static std::string of(const Endpoint& endpoint);

 private:
  static std::string progress(const Endpoint& endpoint, const Operations::Open& operation);
  static std::string links(const Courier& courier);
  static std::string small_frames(const Courier& courier);
  static std::string room(const Router& router);
};

}  // namespace hetsp::comm
