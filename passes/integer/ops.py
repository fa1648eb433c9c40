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
| `tvmcompress.qavgpool`, `qmaxpool` | x | pooling at one scale |
| `tvmcompress.qmean` | x | mean over axes onto its own scale |
| `tvmcompress.qconcat` | (tensors) | concatenation of several scales |
| `tvmcompress.qpad` | x | border of one value |
| `tvmcompress.qresize` | x | nearest neighbour, linear interpolation |
| `tvmcompress.qrequantize` | x | other scale and zero point, clip |
| `tvmcompress.qlut` | x, table | any function of one value |
| `tvmcompress.qsoftmax` | x, table of exponentials | softmax over the last axis |

`relax.reshape`, `permute_dims`, `strided_slice` and `split` work on int8 as they are.
"""

from .conv import qconv2d, qdepthwise
from .dense import qdense
from .elementwise import add_parameters, qadd, qlut, qmul, qrequantize, qsub
from .pool import mean_multiplier, qavgpool, qmaxpool, qmean
from .registry import is_integer_op
from .shape import IDENTITY, qconcat, qpad, qresize
from .softmax import exponentials, qsoftmax

__all__ = [
    "IDENTITY",
    "add_parameters",
    "exponentials",
    "is_integer_op",
    "mean_multiplier",
    "qadd",
    "qavgpool",
    "qconcat",
    "qconv2d",
    "qdense",
    "qdepthwise",
    "qlut",
    "qmaxpool",
    "qmean",
    "qmul",
    "qpad",
    "qrequantize",
    "qresize",
    "qsoftmax",
    "qsub",
]
