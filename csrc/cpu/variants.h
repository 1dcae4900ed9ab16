// The kernels of one target. A kernel body is a class template on the dtype, with `stages`,
// `workspace_bytes` and `supports`. One line below adds it for all four dtypes; within a map and a layout the better
// ones come first.

template <class Body>
constexpr Kernel make_kernel(const char* name, Map map, DType dtype, Layout layout) {
  Kernel kernel{name, map, dtype, layout, Isa::DWCONV_ISA, Body::supports, Body::workspace_bytes, {}};
  int i = 0;
  for (const Stage& stage : Body::stages) kernel.stages[i++] = stage;
  return kernel;
}

#define DWCONV_STRING_(x) #x
#define DWCONV_STRING(x) DWCONV_STRING_(x)
#define DWCONV_KERNEL(map, layout, dtype, type, body)                                                              \
  make_kernel<body<type>>(#map "_" #layout "_" #dtype "_" DWCONV_STRING(DWCONV_ISA), Map::map, DType::dtype, \
                          Layout::layout)
#define DWCONV_VARIANT(map, layout, body)                                                              \
  DWCONV_KERNEL(map, layout, f32, float, body), DWCONV_KERNEL(map, layout, f64, double, body),         \
      DWCONV_KERNEL(map, layout, bf16, bf16, body), DWCONV_KERNEL(map, layout, f16, f16, body)

static constexpr Kernel kernels[] = {
    DWCONV_VARIANT(forward, nchw, NchwForward),
    DWCONV_VARIANT(forward, nhwc, NhwcForward),
    DWCONV_VARIANT(grad_input, nchw, NchwGradInput),
    DWCONV_VARIANT(grad_input, nhwc, NhwcGradInput),
    DWCONV_VARIANT(grad_weight, nchw, NchwGradWeight),
    DWCONV_VARIANT(grad_weight, nhwc, NhwcGradWeight),
};
