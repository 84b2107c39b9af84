// What an engine says about a broken connection, in the words of this one.
#pragma once

#include <string>

namespace hetsp::routed {

// The fact of the first sentence alone: no place in a source file, no advice, no pictograms, nothing of a stack. From
// "[/x/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.1]:5042. This is typically caused by ..." comes
// "connection closed by peer [10.0.0.1]:5042". Never empty.
std::string lane_words(const std::string& text);

}  // namespace hetsp::routed
