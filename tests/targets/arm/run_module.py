"""Run a library for TVM's runtime on an input, in whatever Python has TVM.

Usage: run_module.py LIBRARY INPUT.npy OUTPUT.npy SHAPE DTYPE, the output's shape as 1x10.
"""

import sys

import numpy as np
import tvm

library, given, made, shape, dtype = sys.argv[1:]
module = tvm.runtime.load_module(library)
output = tvm.runtime.tensor(np.zeros([int(size) for size in shape.split("x")], dtype))
module["main"](tvm.runtime.tensor(np.load(given)), output)
np.save(made, output.numpy())
