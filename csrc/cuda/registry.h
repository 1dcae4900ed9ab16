// The families of kernels. Each has a folder with its kernels, one list of them and its table of preferences.
#pragma once
#include "kernel.h"

namespace dwconv::cuda {

struct Family {
  KernelList kernels;  // best first
  PreferenceList preferences;
};

Family small_family();  // many small planes in NCHW
Family nchw_family();   // 3x3, 5x5, 7x7 in NCHW
Family large_family();  // filters of many taps in NCHW
Family nhwc_family();   // 3x3, 5x5, 7x7 in NHWC
Family any_family();    // every shape

}  // namespace dwconv::cuda
