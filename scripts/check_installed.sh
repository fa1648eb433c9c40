#!/usr/bin/env bash
# Check the types of the package, and the order of its rooms, as it installs: neither tool sees through an editable install.
#
# Usage: scripts/check_installed.sh BIN      BIN is the folder of the environment's programs.
set -euo pipefail
cd "$(dirname "$0")/.."
# What an earlier build left there would be installed, too.
rm -rf build

bin=$(cd "$1" && pwd)
installed=$(mktemp -d)
trap 'rm -rf "$installed"' EXIT
"$bin/python" -m pip install -q --disable-pip-version-check --no-deps --target "$installed" .
# The configuration is named, since the tools run elsewhere: here they would see the sources twice.
config=$PWD/pyproject.toml
cd "$installed"
PYTHONPATH=$installed "$bin/lint-imports" "$config" --no-cache
MYPYPATH=$installed "$bin/python" -m mypy --config-file "$config" --cache-dir "$installed/.cache" -p tvmcompress
