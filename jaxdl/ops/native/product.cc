// Matrix products, as convolutions of single pixels by a 1x1 kernel: whole layers of
// that kind, and JAX's own products. oneDNN takes the plain matrices as they are.

#include <cstring>
#include <stdexcept>
#include <string>

#include "convolution.h"

namespace jaxdl {
namespace {

using dnnl::memory;

class Product : public Convolution {
 public:
  explicit Product(const Geometry& g) {
    if (g.taps() != 1 || g.stride_h != 1 || g.stride_w != 1 || g.top || g.left ||
        g.bottom || g.right) {
      throw std::invalid_argument("not a 1x1 kernel with stride 1");
    }
    using type = memory::data_type;
    const type operand = g.operand_bf16 ? type::bf16 : type::f32;
    const type result = g.result_bf16 ? type::bf16 : type::f32;
    const int64_t m = g.images * g.height * g.width, c = g.channels, o = g.outputs;
    const int64_t by_input = g.by_input(), by_output = g.by_output();
    switch (g.direction) {
      case kForward:
        a_ = memory::desc({m, c}, operand, memory::dims{c, 1});
        b_ = memory::desc({c, o}, operand, memory::dims{by_input, by_output});
        c_ = memory::desc({m, o}, result, memory::dims{o, 1});
        break;
      case kInputGradient:
        a_ = memory::desc({m, o}, operand, memory::dims{o, 1});
        b_ = memory::desc({o, c}, operand, memory::dims{by_output, by_input});
        c_ = memory::desc({m, c}, result, memory::dims{c, 1});
        break;
      default:
        a_ = memory::desc({c, m}, operand, memory::dims{1, c});
        b_ = memory::desc({m, o}, operand, memory::dims{o, 1});
        c_ = memory::desc({c, o}, result, memory::dims{by_input, by_output});
    }
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    attributes.set_fpmath_mode(dnnl::fpmath_mode::strict);
    const dnnl::matmul::primitive_desc desc(Cpu(), a_, b_, c_, attributes);
    scratch_ = desc.scratchpad_desc();
    implementation_ = desc.impl_info_str();
    matmul_ = dnnl::matmul(desc);
  }

  const char* implementation() const override { return implementation_.c_str(); }
  size_t workspace() const override { return scratch_.get_size() + kAlignment; }

  void Run(Pool&, void* left, void* right, void* result,
           void* workspace) const override {
    dnnl::stream stream(Cpu());
    const memory scratch(scratch_, Cpu(), Parts(workspace).Take(scratch_.get_size()));
    matmul_.execute(stream, {{DNNL_ARG_SRC, memory(a_, Cpu(), left)},
                             {DNNL_ARG_WEIGHTS, memory(b_, Cpu(), right)},
                             {DNNL_ARG_DST, memory(c_, Cpu(), result)},
                             {DNNL_ARG_SCRATCHPAD, scratch}});
    stream.wait();
  }

 private:
  memory::desc a_, b_, c_, scratch_;
  dnnl::matmul matmul_;
  std::string implementation_;
};

}  // namespace

std::unique_ptr<Convolution> MakeProduct(const Geometry& g) {
  return std::make_unique<Product>(g);
}

}  // namespace jaxdl
