"""How well reconstructions tell worn tools from sound ones.

    python score.py test.npz outputs.npz      # outputs.npz is what `tvmcompress run --output` wrote
"""

from __future__ import annotations

import sys

import numpy as np


def area(errors: np.ndarray, worn: np.ndarray) -> float:
    """The area under the ROC curve: how often a worn tool's error is larger than a sound one's, 0 to 1."""
    ranks = np.argsort(np.argsort(errors)) + 1
    return float((ranks[worn].mean() - (worn.sum() + 1) / 2) / (~worn).sum())


def main(data: str, outputs: str) -> None:
    """Print the area, and how many worn tools are found where 2 % of the sound ones are reported."""
    given, found = np.load(data), np.load(outputs)
    reconstruction = found[found.files[0]].reshape(given["x"].shape)
    errors = ((reconstruction - given["x"]) ** 2).mean(1)
    worn = given["worn"]
    limit = np.quantile(errors[~worn], 0.98)
    print(f"area under the ROC curve {area(errors, worn):.4f}; {(errors[worn] > limit).mean():.1%} of the worn tools found")


if __name__ == "__main__":
    main(*sys.argv[1:])
