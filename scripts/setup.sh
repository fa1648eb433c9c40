#!/usr/bin/env bash
# Set up a virtual environment with this package, and the system packages that targets need.
#
# Usage: scripts/setup.sh VENV REQUIREMENT      REQUIREMENT is "." or, with extras, ".[test]".
# PYTHON says which Python to use. Run again, it only does what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=$1
requirement=$2
python=${PYTHON:-python3}

# Program: the Debian packages that bring it.
declare -A packages=(
    [g++]="g++"
    [arm-none-eabi-gcc]="gcc-arm-none-eabi libnewlib-arm-none-eabi"
    [aarch64-linux-gnu-gcc]="gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
    [arm-linux-gnueabihf-gcc]="gcc-arm-linux-gnueabihf libc6-dev-armhf-cross"
    [qemu-system-arm]="qemu-system-arm"
    [qemu-aarch64]="qemu-user"
    [cmake]="cmake make"
    [llvm-mca]="llvm"
)

install_packages() {
    local as_root=()
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null && sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n)
    fi
    echo "Installing system packages: $*"
    local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@")
    # The lists of packages may be there already; only if they are not, or are old, are they fetched.
    "${install[@]}" >/dev/null 2>&1 || { "${as_root[@]}" apt-get update -q >/dev/null && "${install[@]}" >/dev/null; }
}

if ! command -v "$python" >/dev/null || ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if ! install_packages python3 python3-venv; then
        echo "Python with its venv module is needed and cannot be installed from here; run: sudo apt-get install python3 python3-venv" >&2
        exit 1
    fi
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "$("$python" --version) is too old: Python 3.11 or newer is needed; name one with make PYTHON=python3.12" >&2
    exit 1
fi

missing=()
for program in "${!packages[@]}"; do
    command -v "$program" >/dev/null || missing+=(${packages[$program]})
done
if [ ${#missing[@]} -gt 0 ] && ! install_packages "${missing[@]}"; then
    echo "Some targets will be left out: their tools are missing and cannot be installed from here; run:" \
        "sudo apt-get install ${missing[*]}" >&2
fi

# The environment is made anew where it is broken, for instance after an interruption.
"$venv/bin/python" -c 'import pip' 2>/dev/null || { rm -rf "$venv"; "$python" -m venv "$venv"; }
echo "Installing Python packages into $venv"
"$venv/bin/python" -m pip install -q --disable-pip-version-check -e "$requirement"
