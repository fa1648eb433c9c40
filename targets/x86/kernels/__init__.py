"""Integer kernels for x86: layouts, tensor intrinsics and the operators that use them."""
