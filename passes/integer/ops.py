"""Our integer operators on Relax: the table of contents.

All work on int8 tensors whose real value is scale * (integer - zero point); images are NHWC. Everything that a kernel
needs is on the call: constants as attributes, arrays as arguments. A target lowers the calls it has kernels for; what
remains has a generic definition as a tensor expression, which `relax.transform.LegalizeOps` uses.

| operator | arguments | meaning |
|---|---|---|
| `tvmcompress.qconv2d` | x, weight OHWI, bias, multiplier, shift | convolution, grouped or not |
| `tvmcompress.qdepthwise` | x, weight 1HWC, bias, multiplier, shift | depthwise convolution |
| `tvmcompress.qdense` | x, weight (O, K), bias, multiplier, shift | fully connected layer |
| `tvmcompress.qadd`, `qsub` | a, b | sum, difference of two scales |
| `tvmcompress.qmul` | a, b | product |
| `tvmcompress.qdivide` | a, b, table of reciprocals | quotient |
| `tvmcompress.qmatmul` | a, b | matrix product of two tensors |
| `tvmcompress.qnormalize` | x, factor, offset | layer, group, instance, root mean square normalization |
| `tvmcompress.qprelu` | x, slope | rectifier with a slope for each channel |
| `tvmcompress.qavgpool`, `qmaxpool` | x | pooling at one scale |
| `tvmcompress.qmean` | x | mean over axes onto its own scale |
| `tvmcompress.qconcat` | (tensors) | concatenation of several scales |
| `tvmcompress.qpad` | x | border of one value |
| `tvmcompress.qresize` | x | nearest neighbour, linear interpolation |
| `tvmcompress.qrequantize` | x | other scale and zero point, clip |
| `tvmcompress.qlut` | x, table | any function of one value |
| `tvmcompress.qsoftmax` | x, table of exponentials | softmax over the last axis |
| `tvmcompress.qlogsoftmax` | x, three tables | logarithm of the softmax over the last axis |
| `tvmcompress.qmaskedsoftmax` | x, mask, table of exponentials | the same of some elements |
| `tvmcompress.unpack_int4` | packed, multipliers | int8 weights of four bits, for the layers above |
| `tvmcompress.int4_weight` | values, multipliers | the same before lowering, below a dequantization |
| `tvmcompress.unpack_2of4` | values, indices | int8 weights of which two of every four are stored |
| `tvmcompress.wsoftmax` | x, two tables | softmax of int16 |

Convolutions, layers, sums, products, pools, means, concatenation, padding, resizing, change of scale and tables exist a
second time as `wconv2d`, `wdense`, ... for operands or a result of int16, or a sum of products that needs 64 bits; the
functions below make the one that fits their operands. Targets have no kernels for those.

Relax's operators that move values (`reshape`, `permute_dims`, `strided_slice`, `split`, `take`, `broadcast_to`, ...) or
compare them (`maximum`, `minimum`, `where`) work on int8 as they are.
"""

from .conv import qconv2d, qdepthwise
from .dense import qdense
from .division import qdivide, reciprocals
from .elementwise import (
    ADD_LEFT_SHIFT,
    WIDE_LEFT_SHIFT,
    add_parameters,
    interpolated_table,
    qadd,
    qlut,
    qmul,
    qrequantize,
    qsub,
)
from .log_softmax import LOGARITHMS, differences, qlogsoftmax
from .matmul import largest_depth, qmatmul
from .normalize import fraction_bits, integer_epsilon, qnormalize
from .pool import mean_multiplier, qavgpool, qmaxpool, qmean
from .prelu import qprelu
from .registry import is_integer_op
from .shape import IDENTITY, qconcat, qpad, qresize
from .softmax import exponentials, qmaskedsoftmax, qsoftmax
from .sparse_weights import sparse_weight
from .stored_weights import int4_weight, unpacked
from .wide_softmax import softmax_factor, softmax_tables, wsoftmax

__all__ = [
    "ADD_LEFT_SHIFT",
    "IDENTITY",
    "LOGARITHMS",
    "WIDE_LEFT_SHIFT",
    "add_parameters",
    "differences",
    "exponentials",
    "fraction_bits",
    "int4_weight",
    "integer_epsilon",
    "interpolated_table",
    "is_integer_op",
    "largest_depth",
    "mean_multiplier",
    "qadd",
    "qavgpool",
    "qconcat",
    "qconv2d",
    "qdense",
    "qdepthwise",
    "qdivide",
    "qlogsoftmax",
    "qlut",
    "qmaskedsoftmax",
    "qmatmul",
    "qmaxpool",
    "qmean",
    "qmul",
    "qnormalize",
    "qpad",
    "qprelu",
    "qrequantize",
    "qresize",
    "qsoftmax",
    "qsub",
    "reciprocals",
    "softmax_factor",
    "softmax_tables",
    "sparse_weight",
    "unpacked",
    "wsoftmax",
]
