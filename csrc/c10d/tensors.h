// Tensors as the bytes that travel.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/Event.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace hetsp::routed {

// A tensor whose elements lie one after the other: the user's own, or a copy of it where its strides, its device or a pending
// conjugation do not allow that. In the memory of the host; then a device's current stream is waited for. Or, `on_device`,
// where the tensor is; then what is here is there only after a Moment made later.
class FlatTensor {
 public:
  enum class Use { read, write, update };  // write: contents do not matter before, update: they matter before and after

  FlatTensor(const at::Tensor& tensor, Use use, bool on_device = false);

  const at::Tensor& flat() const { return flat_; }  // one dimension
  std::span<std::byte> bytes() const;
  bool copied() const { return copied_; }
  void commit() const;  // writes a copy back, and waits for that

 private:
  at::Tensor original_, flat_;
  bool copied_ = false;
};

// When the current stream of a device has done what it has to do now.
class Moment {
 public:
  explicit Moment(const at::Device& device);
  void wait() const;  // the host does; throws where the device has failed

 private:
  c10::Event event_;
};

std::span<std::byte> bytes_of(const at::Tensor& flat);

// Of the element type, equal on all ranks; `on_device`: messages of the host and of a device never meet.
std::uint16_t type_code(const at::Tensor& tensor, bool on_device = false);

std::string with_type_names(std::string text);  // "type code 6" in what the engine says, to "type Float"; "... on the GPU"

// Views of `flat`, one element after the other, of these numbers of elements.
std::vector<at::Tensor> cut(const at::Tensor& flat, const std::vector<std::int64_t>& sizes);

// `total` elements in `parts` pieces as equal as can be.
std::vector<std::int64_t> even_sizes(std::int64_t total, int parts);

}  // namespace hetsp::routed
