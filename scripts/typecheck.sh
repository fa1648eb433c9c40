#!/usr/bin/env bash
# Check the types of the package as it installs: mypy does not see through an editable install.
#
# Usage: scripts/typecheck.sh BIN      BIN is the folder of the environment's programs.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$1
installed=$(mktemp -d)
trap 'rm -rf "$installed"' EXIT
"$bin/python" -m pip install -q --disable-pip-version-check --no-deps --target "$installed" .
# The configuration is named, since mypy runs elsewhere: here it would see the sources twice.
config=$PWD/pyproject.toml
python=$(cd "$bin" && pwd)/python
cd "$installed"
MYPYPATH=$installed "$python" -m mypy --config-file "$config" --cache-dir "$installed/.cache" -p tvmcompress
