"""What is left of the joints' errors when the network's prediction is subtracted.

    python score.py test.npz outputs.npz      # outputs.npz is what `tvmcompress run --output` wrote
"""

from __future__ import annotations

import sys

import numpy as np


def main(data: str, outputs: str) -> None:
    """Print the errors' root mean square before and after."""
    truth, found = np.load(data)["errors"], np.load(outputs)
    predicted = found[found.files[0]].reshape(truth.shape)
    before, after = (np.sqrt((errors**2).mean()) for errors in (truth, truth - predicted))
    print(f"error {before:.3f} mrad uncorrected, {after:.3f} mrad corrected")


if __name__ == "__main__":
    main(*sys.argv[1:])
