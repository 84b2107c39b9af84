#include "c10d/tensors.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

#include "hetsp/base/error.h"

namespace hetsp::routed {

namespace {

bool as_it_lies(const at::Tensor& tensor) {
  return tensor.device().is_cpu() && tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg();
}

}  // namespace

HostTensor::HostTensor(const at::Tensor& tensor, Use use) : original_(tensor.detach()) {
  require(tensor.layout() == at::kStrided, "a tensor of layout ", tensor.layout(), " cannot be sent; only strided ones can");
  require(!tensor.is_quantized(), "quantized tensors cannot be sent: send their integer representation");
  const at::NoGradGuard no_grad;
  copied_ = !as_it_lies(original_);
  if (!copied_) {
    host_ = original_.view({-1});
    return;
  }
  if (!tensor.device().is_cpu()) {
    const c10::impl::VirtualGuardImpl guard(tensor.device().type());
    guard.synchronizeStream(guard.getStream(tensor.device()));
  }
  if (use == Use::write) {
    host_ = at::empty({tensor.numel()}, tensor.options().device(at::kCPU));
  } else {
    host_ = original_.resolve_conj().resolve_neg().to(at::kCPU).contiguous().view({-1});
    if (use == Use::update && host_.is_alias_of(original_)) host_ = host_.clone();
  }
}

std::span<std::byte> bytes_of(const at::Tensor& flat) {
  return {static_cast<std::byte*>(flat.numel() == 0 ? nullptr : flat.data_ptr()), flat.nbytes()};
}

std::span<std::byte> HostTensor::bytes() const { return bytes_of(host_); }

void HostTensor::commit() const {
  if (!copied_) return;
  const at::NoGradGuard no_grad;
  original_.copy_(host_.view(original_.sizes()));
}

std::uint16_t type_code(const at::Tensor& tensor) { return static_cast<std::uint16_t>(tensor.scalar_type()); }

std::string with_type_names(std::string text) {
  static const std::string before = "type code ";
  for (auto at = text.find(before); at != std::string::npos; at = text.find(before, at)) {
    const auto digits = at + before.size();
    const auto end = std::min(text.find_first_not_of("0123456789", digits), text.size());
    const int code = end > digits ? std::stoi(text.substr(digits, end - digits)) : -1;
    if (code < 0 || code >= static_cast<int>(at::ScalarType::NumOptions)) break;
    text.replace(at, end - at, std::string("type ") + c10::toString(static_cast<at::ScalarType>(code)));
  }
  return text;
}

std::vector<at::Tensor> cut(const at::Tensor& flat, const std::vector<std::int64_t>& sizes) {
  std::vector<at::Tensor> pieces;
  pieces.reserve(sizes.size());
  std::int64_t at = 0;
  for (const std::int64_t size : sizes) {
    pieces.push_back(flat.narrow(0, at, size));
    at += size;
  }
  return pieces;
}

std::vector<std::int64_t> even_sizes(std::int64_t total, int parts) {
  std::vector<std::int64_t> sizes;
  for (std::int64_t i = 0; i < parts; ++i) sizes.push_back((i + 1) * total / parts - i * total / parts);
  return sizes;
}

}  // namespace hetsp::routed
