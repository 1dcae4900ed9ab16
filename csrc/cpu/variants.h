// How a family lists its kernels. A kernel body is a class template on the dtype, with `stages`, `workspace_bytes` and
// `supports`. One line, DWCONV_VARIANT, adds it for all four dtypes, DWCONV_KERNEL for one; within a operation and a layout the
// better ones come first.

template <class Body>
static constexpr Kernel make_kernel(const char* name, Operation operation, DType dtype, Layout layout) {
  Kernel kernel{name, operation, dtype, layout, Isa::DWCONV_ISA, Body::supports, Body::workspace_bytes, {}};
  int i = 0;
  for (const Stage& stage : Body::stages) kernel.stages[i++] = stage;
  return kernel;
}

#define DWCONV_STRING_(x) #x
#define DWCONV_STRING(x) DWCONV_STRING_(x)
#define DWCONV_KERNEL(operation, layout, kind, dtype, type, body)                                    \
  make_kernel<body<type>>(#operation "_" #layout "_" #dtype "_" #kind "_" DWCONV_STRING(DWCONV_ISA), \
                          Operation::operation, DType::dtype, Layout::layout)
#define DWCONV_VARIANT(operation, layout, kind, body)                                                                  \
  DWCONV_KERNEL(operation, layout, kind, f32, float, body), DWCONV_KERNEL(operation, layout, kind, f64, double, body), \
      DWCONV_KERNEL(operation, layout, kind, bf16, bf16, body), DWCONV_KERNEL(operation, layout, kind, f16, f16, body)
