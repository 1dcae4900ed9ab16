// The kernels of rows and of sequences: 1-D convolutions with a stride of 1.
#if defined(DWCONV_CPU_SEQUENCE_KERNELS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SEQUENCE_KERNELS_H
#undef DWCONV_CPU_SEQUENCE_KERNELS_H
#else
#define DWCONV_CPU_SEQUENCE_KERNELS_H
#endif

#include "pixels.h"
#include "pixels_backward.h"
#include "rows.h"
#include "rows_backward.h"
#include "step.h"

DWCONV_BEGIN_TARGET

static constexpr Kernel kernel_array[] = {
    DWCONV_KERNELS(sequence, nchw, lines, SequenceRows),
    DWCONV_KERNELS(sequence, nhwc, lines, SequencePixels),
    DWCONV_KERNELS(sequence_backward, nchw, lines, SequenceRowsBackward),
    DWCONV_KERNELS(sequence_backward, nhwc, lines, SequencePixelsBackward),
    DWCONV_KERNELS(sequence_step, nchw, lines, SequenceStep),
    DWCONV_KERNELS(forward, nchw, lines, SequenceRows),
    DWCONV_KERNELS(grad_input, nchw, lines, SequenceRows),
};

static constexpr KernelList kernels = {std::begin(kernel_array), std::end(kernel_array)};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SEQUENCE_KERNELS_H
