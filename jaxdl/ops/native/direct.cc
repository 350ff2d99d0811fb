// oneDNN's own convolutions.
//
// The library computes on blocked weights only. Each run packs them on the way in, or
// unpacks their gradient on the way out.

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "convolution.h"

namespace jaxdl {
namespace {

using dnnl::memory;

constexpr int64_t kGrain = 32768;  // weights in a piece of the packing

// Between a kernel as the program has it and oneDNN's blocked layout of it. (oneDNN's
// reorders do this too, for large kernels more slowly.)
class Packing {
 public:
  Packing() = default;

  Packing(const Geometry& g, const memory::desc& packed)
      : item_(memory::data_type_size(packed.get_data_type())),
        bytes_(packed.get_size()),
        size_{g.outputs, g.channels, g.kernel_height, g.kernel_width},
        plain_{g.by_output(), g.by_input(), g.kernel_width * g.channels * g.outputs,
               g.channels * g.outputs} {
    const auto strides = packed.get_strides();
    std::copy(strides.begin(), strides.end(), blocked_);
    const auto blocks = packed.get_inner_blks();
    const auto axes = packed.get_inner_idxs();
    for (size_t k = 0; k < blocks.size(); ++k) block_[axes[k]] *= blocks[k];
    // Where the elements of a block lie, output channels first.
    offsets_.assign(block_[0] * block_[1], 0);
    for (int64_t o = 0; o < block_[0]; ++o) {
      for (int64_t i = 0; i < block_[1]; ++i) {
        int64_t rest[2] = {o, i}, step = 1, offset = 0;
        for (size_t k = blocks.size(); k-- > 0; step *= blocks[k]) {
          offset += rest[axes[k]] % blocks[k] * step;
          rest[axes[k]] /= blocks[k];
        }
        offsets_[i * block_[0] + o] = static_cast<int32_t>(offset);
      }
    }
    contiguous_ = g.by_output() == 1;
    for (int64_t o = 0; o < block_[0]; ++o) contiguous_ &= offsets_[o] == o;
    trivial_ = blocks.empty() && std::equal(plain_, plain_ + 4, blocked_);
  }

  bool trivial() const { return trivial_; }
  size_t bytes() const { return bytes_; }

  void Pack(Pool& pool, const void* plain, void* packed) const {
    if (item_ == 4) {
      Walk<true>(pool, static_cast<const uint32_t*>(plain),
                 static_cast<uint32_t*>(packed));
    } else {
      Walk<true>(pool, static_cast<const uint16_t*>(plain),
                 static_cast<uint16_t*>(packed));
    }
  }

  void Unpack(Pool& pool, const void* packed, void* plain) const {
    if (item_ == 4) {
      Walk<false>(pool, static_cast<const uint32_t*>(packed),
                  static_cast<uint32_t*>(plain));
    } else {
      Walk<false>(pool, static_cast<const uint16_t*>(packed),
                  static_cast<uint16_t*>(plain));
    }
  }

 private:
  template <bool pack, typename T>
  void Walk(Pool& pool, const T* from, T* to) const {
    const int64_t outs = (size_[0] + block_[0] - 1) / block_[0];
    const int64_t ins = (size_[1] + block_[1] - 1) / block_[1];
    const int64_t blocks = size_[2] * size_[3] * ins * outs;
    const int64_t grain = kGrain / (block_[0] * block_[1]);
    ForEachRange(pool, blocks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const int64_t o = b % outs, i = b / outs % ins;
        const int64_t w = b / outs / ins % size_[3], h = b / outs / ins / size_[3];
        const int64_t plain = o * block_[0] * plain_[0] + i * block_[1] * plain_[1] +
                              h * plain_[2] + w * plain_[3];
        const int64_t blocked =
            o * blocked_[0] + i * blocked_[1] + h * blocked_[2] + w * blocked_[3];
        Block<pack>(from + (pack ? plain : blocked), to + (pack ? blocked : plain),
                    std::min(block_[0], size_[0] - o * block_[0]),
                    std::min(block_[1], size_[1] - i * block_[1]));
      }
    });
  }

  // The block's first `outs` x `ins` elements exist; the others are zero.
  template <bool pack, typename T>
  void Block(const T* from, T* to, int64_t outs, int64_t ins) const {
    if (pack && (outs < block_[0] || ins < block_[1])) {
      for (const int32_t offset : offsets_) to[offset] = 0;
    }
    for (int64_t i = 0; i < ins; ++i) {
      const int32_t* const offsets = &offsets_[i * block_[0]];
      if (contiguous_) {
        const int64_t blocked = offsets[0], plain = i * plain_[1];
        std::memcpy(to + (pack ? blocked : plain), from + (pack ? plain : blocked),
                    outs * sizeof(T));
        continue;
      }
      for (int64_t o = 0; o < outs; ++o) {
        const int64_t plain = i * plain_[1] + o * plain_[0];
        if (pack) {
          to[offsets[o]] = from[plain];
        } else {
          to[plain] = from[offsets[o]];
        }
      }
    }
  }

  size_t item_ = 0, bytes_ = 0;
  int64_t size_[4] = {}, plain_[4] = {}, blocked_[4] = {}, block_[4] = {1, 1, 1, 1};
  std::vector<int32_t> offsets_;
  bool contiguous_ = false, trivial_ = true;
};

class Direct : public Convolution {
 public:
  explicit Direct(const Geometry& g) : direction_(g.direction) {
    using tag = memory::format_tag;
    using type = memory::data_type;
    const type operand = g.operand_bf16 ? type::bf16 : type::f32;
    const type result = g.result_bf16 ? type::bf16 : type::f32;
    const memory::dims image_dims{g.images, g.channels, g.height, g.width};
    const memory::dims output_dims{g.images, g.outputs, g.rows, g.columns};
    const memory::dims kernel_dims{g.outputs, g.channels, g.kernel_height,
                                   g.kernel_width};
    const memory::dims strides{g.stride_h, g.stride_w};
    const memory::dims dilations{g.dilation_h - 1, g.dilation_w - 1};
    const memory::dims before{g.top, g.left}, after{g.bottom, g.right};
    const type image_type = direction_ == kInputGradient ? result : operand;
    const type output_type = direction_ == kForward ? result : operand;
    const type kernel_type = direction_ == kWeightGradient ? result : operand;
    const memory::desc image(image_dims, image_type, tag::nhwc);
    const memory::desc output(output_dims, output_type, tag::nhwc);
    const memory::desc any(kernel_dims, kernel_type, tag::any);

    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    attributes.set_fpmath_mode(dnnl::fpmath_mode::strict);
    const auto forward = dnnl::convolution_forward::primitive_desc(
        Cpu(),
        direction_ == kForward ? dnnl::prop_kind::forward_inference
                               : dnnl::prop_kind::forward_training,
        dnnl::algorithm::convolution_direct,
        memory::desc(image_dims, operand, tag::nhwc),
        memory::desc(kernel_dims, operand, tag::any),
        memory::desc(output_dims, direction_ == kForward ? result : operand, tag::nhwc),
        strides, dilations, before, after, attributes);
    switch (direction_) {
      case kForward:
        packed_ = forward.weights_desc();
        SetPrimitive(dnnl::convolution_forward(forward), forward);
        break;
      case kInputGradient: {
        const auto backward = dnnl::convolution_backward_data::primitive_desc(
            Cpu(), dnnl::algorithm::convolution_direct, image, any, output, strides,
            dilations, before, after, forward, attributes);
        packed_ = backward.weights_desc();
        SetPrimitive(dnnl::convolution_backward_data(backward), backward);
        break;
      }
      case kWeightGradient: {
        const auto backward = dnnl::convolution_backward_weights::primitive_desc(
            Cpu(), dnnl::algorithm::convolution_direct, image, any, output, strides,
            dilations, before, after, forward, attributes);
        packed_ = backward.diff_weights_desc();
        SetPrimitive(dnnl::convolution_backward_weights(backward), backward);
        break;
      }
      default:
        throw std::invalid_argument("no such direction");
    }
    images_ = image;
    outputs_ = output;
    packing_ = Packing(g, packed_);
  }

  const char* implementation() const override { return implementation_.c_str(); }

  size_t workspace() const override {
    const size_t packed = packing_.trivial() ? 0 : Aligned(packing_.bytes());
    return packed + Aligned(scratch_.get_size()) + kAlignment;
  }

  void Run(Pool& pool, void* left, void* right, void* result,
           void* workspace) const override {
    Parts parts(workspace);
    const auto take = [&parts](const memory::desc& desc) {
      return memory(desc, Cpu(), parts.Take(desc.get_size()));
    };
    dnnl::stream stream(Cpu());
    void* const kernel = direction_ == kWeightGradient ? result : right;
    const memory packed =
        packing_.trivial() ? memory(packed_, Cpu(), kernel) : take(packed_);
    const memory scratch = take(scratch_);
    if (!packing_.trivial() && direction_ != kWeightGradient) {
      packing_.Pack(pool, kernel, packed.get_data_handle());
    }
    switch (direction_) {
      case kForward:
        primitive_.execute(stream, {{DNNL_ARG_SRC, memory(images_, Cpu(), left)},
                                    {DNNL_ARG_WEIGHTS, packed},
                                    {DNNL_ARG_DST, memory(outputs_, Cpu(), result)},
                                    {DNNL_ARG_SCRATCHPAD, scratch}});
        break;
      case kInputGradient:
        primitive_.execute(stream, {{DNNL_ARG_DIFF_DST, memory(outputs_, Cpu(), left)},
                                    {DNNL_ARG_WEIGHTS, packed},
                                    {DNNL_ARG_DIFF_SRC, memory(images_, Cpu(), result)},
                                    {DNNL_ARG_SCRATCHPAD, scratch}});
        break;
      default:
        primitive_.execute(stream, {{DNNL_ARG_SRC, memory(images_, Cpu(), left)},
                                    {DNNL_ARG_DIFF_DST, memory(outputs_, Cpu(), right)},
                                    {DNNL_ARG_DIFF_WEIGHTS, packed},
                                    {DNNL_ARG_SCRATCHPAD, scratch}});
    }
    stream.wait();
    if (!packing_.trivial() && direction_ == kWeightGradient) {
      packing_.Unpack(pool, packed.get_data_handle(), kernel);
    }
  }

 private:
  template <typename Primitive, typename Desc>
  void SetPrimitive(Primitive primitive, const Desc& desc) {
    primitive_ = primitive;
    scratch_ = desc.scratchpad_desc();
    implementation_ = desc.impl_info_str();
  }

  int64_t direction_;
  dnnl::primitive primitive_;
  memory::desc images_, outputs_, packed_, scratch_;
  Packing packing_;
  std::string implementation_;
};

}  // namespace

std::unique_ptr<Convolution> MakeDirect(const Geometry& g) {
  return std::make_unique<Direct>(g);
}

}  // namespace jaxdl
