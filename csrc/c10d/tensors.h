// Tensors as the bytes that travel.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace hetsp::routed {

// A tensor whose elements lie one after the other in host memory: the user's own, or a copy of it where its strides, its device
// or a pending conjugation do not allow that. On a device the current stream is waited for.
class HostTensor {
 public:
  enum class Use { read, write, update };  // write: contents do not matter before, update: they matter before and after

  HostTensor(const at::Tensor& tensor, Use use);

  const at::Tensor& flat() const { return host_; }  // one dimension
  std::span<std::byte> bytes() const;
  bool copied() const { return copied_; }
  void commit() const;  // writes a copy back

 private:
  at::Tensor original_, host_;
  bool copied_ = false;
};

std::span<std::byte> bytes_of(const at::Tensor& flat);

std::uint16_t type_code(const at::Tensor& tensor);  // of the element type, equal on all ranks

std::string with_type_names(std::string text);  // "type code 6" in what the engine says, to "type Float"

// Views of `flat`, one element after the other, of these numbers of elements.
std::vector<at::Tensor> cut(const at::Tensor& flat, const std::vector<std::int64_t>& sizes);

// `total` elements in `parts` pieces as equal as can be.
std::vector<std::int64_t> even_sizes(std::int64_t total, int parts);

}  // namespace hetsp::routed
