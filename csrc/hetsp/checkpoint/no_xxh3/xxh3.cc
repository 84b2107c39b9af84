#include "hetsp/checkpoint/xxh3.h"

namespace hetsp::checkpoint {

const Xxh3* xxh3(Isa /*isa*/) { return nullptr; }

}  // namespace hetsp::checkpoint
