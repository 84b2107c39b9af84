#include "c10d/tensors.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

#include "hetsp/base/error.h"
#include "hetsp/comm/frame.h"

namespace hetsp::routed {

namespace {

bool as_it_lies(const at::Tensor& tensor, bool on_device) {
  return (on_device || tensor.device().is_cpu()) && tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg();
}

}  // namespace

FlatTensor::FlatTensor(const at::Tensor& tensor, Use use, bool on_device) : original_(tensor.detach()) {
  require(tensor.layout() == at::kStrided, "a tensor of layout ", tensor.layout(), " cannot be sent; only strided ones can");
  require(!tensor.is_quantized(), "quantized tensors cannot be sent: send their integer representation");
  const at::NoGradGuard no_grad;
  copied_ = !as_it_lies(original_, on_device);
  if (!copied_) {
    flat_ = original_.view({-1});
    return;
  }
  const at::Device place = on_device ? tensor.device() : at::Device(at::kCPU);
  if (!on_device && !tensor.device().is_cpu()) {
    const c10::impl::VirtualGuardImpl guard(tensor.device().type());
    guard.synchronizeStream(guard.getStream(tensor.device()));
  }
  if (use == Use::write) {
    flat_ = at::empty({tensor.numel()}, tensor.options().device(place));
  } else {
    flat_ = original_.resolve_conj().resolve_neg().to(place).contiguous().view({-1});
    if (use == Use::update && flat_.is_alias_of(original_)) flat_ = flat_.clone();
  }
}

std::span<std::byte> bytes_of(const at::Tensor& flat) {
  return {static_cast<std::byte*>(flat.numel() == 0 ? nullptr : flat.data_ptr()), flat.nbytes()};
}

std::span<std::byte> FlatTensor::bytes() const { return bytes_of(flat_); }

void FlatTensor::commit() const {
  if (!copied_) return;
  const at::NoGradGuard no_grad;
  original_.copy_(flat_.view(original_.sizes()));
  const at::Device device = original_.device();
  if (!flat_.device().is_cpu()) Moment(device).wait();  // of the calling thread's stream: the copy is between two places of it
}

Moment::Moment(const at::Device& device) : event_(device.type()) {
  const c10::impl::VirtualGuardImpl guard(device.type());
  event_.record(guard.getStream(device));
}

void Moment::wait() const { event_.synchronize(); }

std::uint16_t type_code(const at::Tensor& tensor, bool on_device) {
  return static_cast<std::uint16_t>(static_cast<std::uint16_t>(tensor.scalar_type()) | (on_device ? comm::kOnDevice : 0));
}

std::string with_type_names(std::string text) {
  static const std::string before = "type code ";
  for (auto at = text.find(before); at != std::string::npos; at = text.find(before, at)) {
    const auto digits = at + before.size();
    const auto end = std::min(text.find_first_not_of("0123456789", digits), text.size());
    const int said = end > digits ? std::stoi(text.substr(digits, end - digits)) : -1;
    const bool on_device = said >= 0 && comm::is_on_device(static_cast<std::uint16_t>(said));
    const int code = on_device ? said & ~comm::kOnDevice : said;
    if (code < 0 || code >= static_cast<int>(at::ScalarType::NumOptions)) break;
    text.replace(at, end - at, concat("type ", static_cast<at::ScalarType>(code), on_device ? " on the GPU" : ""));
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
