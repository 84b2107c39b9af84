// Bulk tensor copies for hopper_on_cpu.h: maps of its own format, made by cuda_on_cpu::tensor_map().
#pragma once

#include "support/hopper_on_cpu.h"

namespace hetsp::attention::cuda::hopper {

struct alignas(64) TensorMap {
  unsigned char opaque[128];
};

}  // namespace hetsp::attention::cuda::hopper

namespace cuda_on_cpu {

namespace detail {

using hetsp::attention::cuda::hopper::Barrier;
using hetsp::attention::cuda::hopper::BarrierParts;
using hetsp::attention::cuda::hopper::TensorMap;

constexpr int map_dims = 3, row_bytes = 128;

struct MapParts {
  std::uint64_t magic;
  unsigned char* base;
  std::int64_t sizes[map_dims], strides[map_dims];  // bytes
  int box[map_dims], element_bytes;
  bool is_float;

  static constexpr std::uint64_t known = 0x70616d20726f736e;
  static MapParts of(const TensorMap& map) {
    MapParts parts{};
    static_assert(sizeof parts <= sizeof map);
    std::memcpy(&parts, &map, sizeof parts);
    if (parts.magic != known) throw BrokenKernel("a tensor map that cuda_on_cpu::tensor_map() has not made");
    return parts;
  }
  int bytes() const { return row_bytes * box[1] * box[2]; }

  // visit(byte in the swizzled box at shared address `to`, element or null where outside) for each element of the box.
  template <class Visit>
  CUDA_ON_CPU_UNSEEN void each(std::uint32_t to, const int (&corner)[map_dims], const Visit& visit) const {
    for (int k = 0; k < box[2]; ++k)
      for (int j = 0; j < box[1]; ++j)
        for (int i = 0; i < box[0]; ++i) {
          const std::int64_t at[map_dims] = {std::int64_t{corner[0]} + i, std::int64_t{corner[1]} + j,
                                             std::int64_t{corner[2]} + k};
          unsigned char* element = base;
          for (int d = 0; d < map_dims; ++d)
            element = element == nullptr || at[d] < 0 || at[d] >= sizes[d] ? nullptr : element + at[d] * strides[d];
          std::uint32_t address = to + static_cast<std::uint32_t>((k * box[1] + j) * row_bytes + i * element_bytes);
          address ^= (address >> 7 & 7u) << 4;
          visit(address, element);
        }
  }
};

struct Load : Asynchronous {
  MapParts map;
  HopperBlock& block;
  std::uint32_t to;
  int corner[map_dims];
  Barrier& full;

  Load(const MapParts& parts, HopperBlock& own, std::uint32_t address, Barrier& barrier, int c0, int c1, int c2)
      : map(parts), block(own), to(address), corner{c0, c1, c2}, full(barrier) {}

  CUDA_ON_CPU_UNSEEN bool step() override {
    block.publish();  // what others have published was written before
    map.each(to, corner, [&](std::uint32_t address, const unsigned char* element) {
      for (int b = 0; b < map.element_bytes; ++b)
        block.block.shared[address + b] = block.seen[address + b] = element == nullptr ? 0 : element[b];
    });
    BarrierParts parts = BarrierParts::of(full);
    parts.bytes -= map.bytes();
    release(&full);
    complete(full, parts, block);
    return true;
  }
  void finish() override {
    throw BrokenKernel(concat("block ", block.block.index.x, " ended before its bulk load to shared address ", to, " of box (",
                              corner[0], ", ", corner[1], ", ", corner[2], ") had arrived"));
  }
};

struct Reduce : Asynchronous {
  MapParts map;
  HopperBlock& block;
  std::uint32_t from;
  int corner[map_dims];
  bool is_read = false, is_complete = false;
  bool is_over = false;  // as far as its thread knows
  std::vector<std::pair<float*, float>> addends;

  Reduce(const MapParts& parts, HopperBlock& own, std::uint32_t address, int c0, int c1, int c2)
      : map(parts), block(own), from(address), corner{c0, c1, c2} {}

  CUDA_ON_CPU_UNSEEN bool step() override {
    if (!is_read) {
      map.each(from, corner, [&](std::uint32_t address, unsigned char* element) {
        float value = 0;
        std::memcpy(&value, &block.seen[address], sizeof value);
        if (element != nullptr) addends.emplace_back(reinterpret_cast<float*>(element), value);
      });
      is_read = true;
    } else if (!is_complete) {
      for (const auto& [element, value] : addends) *element += value;
      is_complete = true;
    }
    return is_complete;
  }
  void finish() override {
    if (!is_read)
      throw BrokenKernel(concat("block ", block.block.index.x, " ended before its bulk reduction from shared address ", from,
                                " was read (wait_bulk_read)"));
    while (!step()) {
    }
  }
};

struct BulkGroups {
  std::vector<std::shared_ptr<Reduce>> open;
  std::deque<std::vector<std::shared_ptr<Reduce>>> committed;
};

inline BulkGroups& own_bulk_groups() {
  auto& groups = hopper_block().bulk_groups[threadIdx.x];
  if (!groups) groups = std::make_shared<BulkGroups>();
  return *static_cast<BulkGroups*>(groups.get());
}

// All but the last `left` groups of the thread are read, or complete.
inline void wait_groups(std::size_t left, bool complete) {
  const Unseen unseen;
  BulkGroups& groups = own_bulk_groups();
  HopperBlock& block = hopper_block();
  for (std::size_t g = 0; g + left < groups.committed.size(); ++g)
    for (const auto& copy : groups.committed[g]) {
      if (!copy->is_over) seen_to_read(block.block.shared + copy->from, static_cast<std::size_t>(copy->map.bytes()));
      copy->is_over = true;
      while (!copy->is_complete && (complete || !copy->is_read)) copy->step();
    }
  std::erase_if(block.copies, [](const auto& copy) {
    const auto* const reduce = dynamic_cast<const Reduce*>(copy.get());
    return reduce != nullptr && reduce->is_complete;
  });
  while (complete && groups.committed.size() > left) groups.committed.pop_front();
}

}  // namespace detail

// A tensor (sizes[0] contiguous elements, sizes[1] at strides[0] bytes, sizes[2] at strides[1] bytes) in boxes of 128-byte
// rows, 128-byte swizzle. The demands of the driver's encoder are checked.
inline hetsp::attention::cuda::hopper::TensorMap tensor_map(void* data, int element_bytes, bool is_float,
                                                            const std::array<std::int64_t, 3>& sizes,
                                                            const std::array<std::int64_t, 2>& strides,
                                                            const std::array<int, 3>& box) {
  using hetsp::require;
  require(reinterpret_cast<std::uintptr_t>(data) % 16 == 0, "the tensor is not at a multiple of 16 bytes");
  for (const std::int64_t size : sizes) require(0 < size && size <= std::int64_t{1} << 32, "a size of ", size);
  for (const std::int64_t stride : strides)
    require(stride % 16 == 0 && 0 <= stride && stride < std::int64_t{1} << 40, "a stride of ", stride, " bytes");
  for (const int side : box) require(0 < side && side <= 256, "a box of ", side);
  require(box[0] * element_bytes == detail::row_bytes, "rows of ", box[0] * element_bytes, " bytes, not 128");
  const detail::MapParts parts{detail::MapParts::known,
                               static_cast<unsigned char*>(data),
                               {sizes[0], sizes[1], sizes[2]},
                               {element_bytes, strides[0], strides[1]},
                               {box[0], box[1], box[2]},
                               element_bytes,
                               is_float};
  hetsp::attention::cuda::hopper::TensorMap map{};
  std::memcpy(&map, &parts, sizeof parts);
  return map;
}

}  // namespace cuda_on_cpu

namespace hetsp::attention::cuda::hopper {

inline void prefetch(const TensorMap& map) { cuda_on_cpu::detail::MapParts::of(map); }

inline void load_box(void* shared, const TensorMap& map, Barrier& full, int c0, int c1, int c2,
                     const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  namespace detail = cuda_on_cpu::detail;
  const detail::Unseen unseen;
  check_known(full, where);
  auto& block = detail::hopper_block();
  const auto parts = detail::MapParts::of(map);
  const std::uint32_t address = shared_address(shared, where);
  if (address % 128 != 0) cuda_on_cpu::fail("a box at no multiple of 128 bytes", where);
  if (address + static_cast<std::size_t>(parts.bytes()) > block.seen.size())
    cuda_on_cpu::fail("a box that crosses the end of shared memory", where);
  detail::seen_to_write(shared, static_cast<std::size_t>(parts.bytes()));
  detail::release(&full);  // whoever waits for the box sees it
  const auto copy = std::make_shared<detail::Load>(parts, block, address, full, c0, c1, c2);
  if (detail::scheduler().options.seed == 1 || detail::at_random()) {
    copy->step();
  } else {
    block.copies.push_back(copy);
  }
}

inline void reduce_add_box(const TensorMap& map, const void* shared, int c0, int c1, int c2,
                           const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  namespace detail = cuda_on_cpu::detail;
  const detail::Unseen unseen;
  auto& block = detail::hopper_block();
  const auto parts = detail::MapParts::of(map);
  if (!parts.is_float) cuda_on_cpu::fail("reduce_add_box adds float32", where);
  if (c0 < 0 || c1 < 0 || c2 < 0) cuda_on_cpu::fail("a bulk reduction at a negative coordinate", where);
  const std::uint32_t address = shared_address(shared, where);
  if (address % 128 != 0) cuda_on_cpu::fail("a box at no multiple of 128 bytes", where);
  if (address + static_cast<std::size_t>(parts.bytes()) > block.seen.size())
    cuda_on_cpu::fail("a box that crosses the end of shared memory", where);
  block.publish_own();
  detail::seen_to_read(shared, static_cast<std::size_t>(parts.bytes()));
  const auto copy = std::make_shared<detail::Reduce>(parts, block, address, c0, c1, c2);
  detail::own_bulk_groups().open.push_back(copy);
  if (detail::at_random()) copy->step();
  block.copies.push_back(copy);
}

inline void commit_bulk() {
  const cuda_on_cpu::detail::Unseen unseen;
  auto& groups = cuda_on_cpu::detail::own_bulk_groups();
  groups.committed.push_back(std::move(groups.open));
  groups.open.clear();
}
template <int N>
void wait_bulk_read() {
  cuda_on_cpu::detail::wait_groups(N, false);
}
template <int N>
void wait_bulk() {
  cuda_on_cpu::detail::wait_groups(N, true);
}

}  // namespace hetsp::attention::cuda::hopper
