"""Take the pictures of reports in docs/pictures, in a headless Chromium.

Usage: python scripts/make_screenshots.py [REPORT.html]

Without a report it makes one: the digits example, pruned and in int8, for Cortex-M4.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "pictures" / "report.png"
WIDTH, HEIGHT = 1100, 900
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def make_report(folder: Path) -> Path:
    """The report of the digits example."""
    digits = ROOT / "examples"
    command = [sys.executable, "-m", "tvmcompress.cli.main", "compress", digits / "digits.onnx"]
    data = ["--calib", digits / "digits_calib.npz", "--eval", digits / "digits_test.npz"]
    options = ["--prune", "0.5", "--quantize", "int8", "--target", "cortex-m4", "--output", folder / "out"]
    subprocess.run([*command, *data, *options], check=True)
    return folder / "out" / "report.html"


def take(page: Path, picture: Path) -> None:
    """Take the picture of the top of a page, WIDTH x HEIGHT pixels."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        sys.exit("pictures of pages need Chromium: sudo apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                f"--window-size={WIDTH},{HEIGHT}",
                f"--screenshot={picture}",
                page.resolve().as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )


def main() -> None:
    """Take the pictures."""
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 1:
        take(Path(sys.argv[1]), PICTURE)
        return
    with tempfile.TemporaryDirectory() as folder:
        take(make_report(Path(folder)), PICTURE)


if __name__ == "__main__":
    main()
