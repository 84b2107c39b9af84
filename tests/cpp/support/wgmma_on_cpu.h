// Products of a warpgroup for hopper_on_cpu.h. A product runs when all 128 threads have issued it and a wait needs it, or (seed
// >= 2) perhaps as soon as it is issued; only then are its operands in shared memory read, through their descriptors.
#pragma once

#include "support/hopper_on_cpu.h"

namespace cuda_on_cpu::detail {

// A product as a thread wishes it; all threads of the warpgroup wish the same.
struct Wish {
  int n;
  bool bf16, registers, transpose_a, transpose_b, accumulate;
  std::uint64_t a, b;  // descriptors; a: 0 where it is in registers
  Place where;

  bool same_as(const Wish& other) const {
    return n == other.n && bf16 == other.bf16 && registers == other.registers && transpose_a == other.transpose_a &&
           transpose_b == other.transpose_b && accumulate == other.accumulate && a == other.a && b == other.b;
  }
};

struct Product : Wish {
  explicit Product(const Wish& wish) : Wish(wish) {}
  // Of each thread.
  int issued = 0;
  float* d[128];
  std::uint32_t fragment[128][4];
  bool kept[128];  // where no product under way wrote the same registers,
  std::vector<float> before;  // [128][n / 2], what they held
};

inline int accumulator_row(int thread, int r) { return thread / 32 * 16 + thread % 32 / 4 + (r / 2 % 2) * 8; }
inline int accumulator_column(int thread, int r) { return r / 4 * 8 + thread % 4 * 2 + r % 2; }

struct Mma : Asynchronous {
  HopperBlock& block;
  std::deque<std::unique_ptr<Product>> products;  // under way, behind `done` that are not
  std::size_t done = 0;
  std::vector<std::size_t> group_ends;
  std::size_t issued[128] = {}, committed[128] = {};
  std::deque<Wish> unwaited;  // of the products from number `waited` on
  std::size_t waited = 0;
  char issues = 0, waits = 0;  // addresses for ThreadSanitizer

  explicit Mma(HopperBlock& own) : block(own) {}

  bool step() override { return true; }
  void finish() override {
    if (!products.empty())
      throw BrokenKernel(concat("block ", block.block.index.x, " ended before the product at ",
                                text_of(products.front()->where), " was waited for"));
  }

  CUDA_ON_CPU_UNSEEN float element(std::uint32_t address, bool bf16, const Place& where) const {
    address ^= (address >> 7 & 7u) << 4;
    if (address + 2 > block.seen.size()) throw BrokenKernel(concat("an operand outside shared memory at ", text_of(where)));
    const auto bits = static_cast<std::uint16_t>(block.seen[address] | block.seen[address + 1] << 8);
    return bf16 ? to_float(hetsp::attention::BFloat16{bits}) : to_float(hetsp::attention::Float16{bits});
  }

  // The operand as [16 summed][count], of the canonical layouts with the 128-byte swizzle (PTX ISA, wgmma's matrix layouts).
  CUDA_ON_CPU_UNSEEN void decode(std::uint64_t descriptor, bool mn_major, int count, const Product& product, float* out) const {
    const auto field = [&](int first) { return static_cast<std::uint32_t>(descriptor >> first & 0x3fffu) << 4; };
    const std::uint32_t start = field(0), leading = field(16), stride = field(32);
    if (descriptor >> 62 != 1 || (descriptor >> 49 & 7u) != 0)
      throw BrokenKernel(concat("a matrix descriptor without the 128-byte swizzle at ", text_of(product.where)));
    for (std::uint32_t k = 0; k < 16; ++k)
      for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(count); ++i)
        out[k * count + i] = element(mn_major ? start + i / 64 * leading + k / 8 * stride + k % 8 * 128 + i % 64 * 2
                                              : start + i / 8 * stride + i % 8 * 128 + k * 2,
                                     product.bf16, product.where);
  }

  // ThreadSanitizer is told of the operands twice: by each warp that issues, since what they read must have been written
  // before; and by the first thread that has waited, since nobody may write there earlier.
  void seen_to_read_operand(std::uint64_t descriptor, bool mn_major, int count) const {
    const auto field = [&](int first) { return static_cast<std::uint32_t>(descriptor >> first & 0x3fffu) << 4; };
    const int rows = mn_major ? 16 : count, chunks = mn_major ? count / 8 : 2;
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < chunks; ++c) {
        std::uint32_t address =
            field(0) + static_cast<std::uint32_t>(r) / 8 * field(32) + static_cast<std::uint32_t>(r) % 8 * 128;
        address += mn_major ? static_cast<std::uint32_t>(c) / 8 * field(16) + static_cast<std::uint32_t>(c) % 8 * 16
                            : static_cast<std::uint32_t>(c) * 16;
        address ^= (address >> 7 & 7u) << 4;
        if (address + 16 <= block.seen.size()) seen_to_read(block.block.shared + address, 16);
      }
  }
  void seen_to_read_operands([[maybe_unused]] const Wish& operands) const {
#if defined(__SANITIZE_THREAD__)
    if (!operands.registers) seen_to_read_operand(operands.a, operands.transpose_a, 64);
    seen_to_read_operand(operands.b, operands.transpose_b, operands.n);
#endif
  }

  CUDA_ON_CPU_UNSEEN void multiply(const Product& product, float* d) const {
    const int n = product.n;
    float a[16 * 64];
    std::vector<float> b(16 * static_cast<std::size_t>(n));
    if (product.registers) {
      for (int t = 0; t < 128; ++t)
        for (int r = 0; r < 8; ++r) {
          const auto bits = static_cast<std::uint16_t>(product.fragment[t][r / 2] >> (r % 2 * 16));
          a[accumulator_column(t, r) * 64 + accumulator_row(t, r)] =
              product.bf16 ? to_float(hetsp::attention::BFloat16{bits}) : to_float(hetsp::attention::Float16{bits});
        }
    } else {
      decode(product.a, product.transpose_a, 64, product, a);
    }
    decode(product.b, product.transpose_b, n, product, b.data());
    for (int row = 0; row < 64; ++row)
      for (int k = 0; k < 16; ++k) {
        const float left = a[k * 64 + row];
        const float* const right = &b[k * static_cast<std::size_t>(n)];
        float* const to = d + row * n;
        for (int column = 0; column < n; ++column) to[column] += left * right[column];
      }
  }

  // Runs all products before number `end`.
  CUDA_ON_CPU_UNSEEN void run(std::size_t end) {
    struct Accumulator {
      Product* last;
      std::vector<float> values;  // [64][n]
    };
    std::vector<Accumulator> accumulators;
    std::deque<std::unique_ptr<Product>> over;
    for (; done < end; ++done) {
      over.push_back(std::move(products.front()));
      products.pop_front();
      Product& product = *over.back();
      const auto n = static_cast<std::size_t>(product.n);
      auto found =
          std::find_if(accumulators.begin(), accumulators.end(), [&](const auto& it) { return it.last->d[0] == product.d[0]; });
      if (found == accumulators.end()) {
        accumulators.push_back({&product, std::vector<float>(64 * n)});
        found = accumulators.end() - 1;
        for (int t = 0; t < 128; ++t)
          for (int r = 0; r < product.n / 2; ++r)
            found->values[accumulator_row(t, r) * n + accumulator_column(t, r)] =
                product.kept[t] ? product.before[t * n / 2 + r] : product.d[t][r];
      }
      found->last = &product;
      if (!product.accumulate) std::fill(found->values.begin(), found->values.end(), 0.0f);
      multiply(product, found->values.data());
    }
    for (const Accumulator& it : accumulators)
      for (int t = 0; t < 128; ++t)
        for (int r = 0; r < it.last->n / 2; ++r)
          it.last->d[t][r] = it.values[accumulator_row(t, r) * static_cast<std::size_t>(it.last->n) + accumulator_column(t, r)];
  }

  CUDA_ON_CPU_UNSEEN bool all_issued(std::size_t end) const {
    return end <= done + products.size() && (end <= done || products[end - done - 1]->issued == 128);
  }

  CUDA_ON_CPU_UNSEEN void issue(const Wish& wish, float* d, const std::uint32_t* fragment) {
    const Unseen unseen;
    block.publish_own();
    const int thread = static_cast<int>(threadIdx.x % 128);
    const std::size_t number = issued[thread]++;
    if (thread % 32 == 0) seen_to_read_operands(wish), release(&issues);
    if (number == done + products.size()) {
      products.push_back(std::make_unique<Product>(wish));
      unwaited.push_back(wish);
    }
    Product& product = *products[number - done];
    if (!product.same_as(wish))
      fail(concat("the threads of a warpgroup issue different products, another at ", text_of(product.where)), wish.where);
    product.d[thread] = d;
    if (fragment != nullptr) std::copy_n(fragment, 4, product.fragment[thread]);
    bool under_way = false;
    for (std::size_t i = number - done; i-- > 0 && !under_way;) under_way = products[i]->d[thread] == d;
    product.kept[thread] = !under_way;
    if (!under_way) {
      const auto half = static_cast<std::size_t>(product.n / 2);
      if (product.before.empty()) product.before.resize(128 * half);
      std::copy_n(d, half, &product.before[static_cast<std::size_t>(thread) * half]);
      std::fill_n(d, half, std::numeric_limits<float>::quiet_NaN());
    }
    if (++product.issued == 128 && at_random()) run(number + 1);
  }

  CUDA_ON_CPU_UNSEEN void commit(const Place& where) {
    const Unseen unseen;
    const int thread = static_cast<int>(threadIdx.x % 128);
    const std::size_t group = committed[thread]++;
    if (group == group_ends.size()) group_ends.push_back(issued[thread]);
    if (group_ends[group] != issued[thread]) fail("the threads of a warpgroup commit different groups", where);
  }

  CUDA_ON_CPU_UNSEEN void wait(std::size_t left, const Place& where) {
    const Unseen unseen;
    const int thread = static_cast<int>(threadIdx.x % 128);
    if (committed[thread] <= left) return;
    const std::size_t end = group_ends[committed[thread] - 1 - left];
    if (!all_issued(end))
      wait_until([&] { return all_issued(end); },
                 [&](std::string& text) { text += concat("mma_wait at ", text_of(where), ", others have not issued"); });
    if (done < end) run(end);
    acquire(&issues);
    if (waited >= end) return acquire(&waits);
    for (; waited < end; ++waited) {
      seen_to_read_operands(unwaited.front());
      unwaited.pop_front();
    }
    release(&waits);
  }
};

inline Mma& own_mma() {
  const Unseen unseen;
  HopperBlock& block = hopper_block();
  auto& state = block.mma[threadIdx.x / 128];
  if (!state) state = std::make_shared<Mma>(block);
  return static_cast<Mma&>(*state);
}

}  // namespace cuda_on_cpu::detail

namespace hetsp::attention::cuda::hopper {

inline void mma_fence() {}
inline void mma_commit(const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  cuda_on_cpu::detail::own_mma().commit(where);
}
template <int N>
void mma_wait(const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  cuda_on_cpu::detail::own_mma().wait(N, where);
}
template <class T, int N>
void hold(T (&)[N]) {}

template <int N>
constexpr bool mma_has_width =
    N == 16 || N == 32 || N == 64 || N == 80 || N == 96 || N == 128 || N == 160 || N == 176 || N == 192 || N == 256;

template <class Element, int N, bool TransposeA = false, bool TransposeB = false>
void mma_ss(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, bool accumulate,
            const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  static_assert(mma_has_width<N>, "a width that wgmma.cuh does not have");
  cuda_on_cpu::detail::own_mma().issue(
      {N, std::is_same_v<Element, BFloat16>, false, TransposeA, TransposeB, accumulate, a, b, where}, d, nullptr);
}

template <class Element, int N, bool TransposeB = false>
void mma_rs(float (&d)[N / 2], const std::uint32_t (&a)[4], std::uint64_t b, bool accumulate,
            const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  static_assert(mma_has_width<N>, "a width that wgmma.cuh does not have");
  cuda_on_cpu::detail::own_mma().issue({N, std::is_same_v<Element, BFloat16>, true, false, TransposeB, accumulate, 0, b, where},
                                       d, a);
}

}  // namespace hetsp::attention::cuda::hopper
