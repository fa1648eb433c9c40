#!/usr/bin/env bash
# Usage: scripts/arm64_python.sh FOLDER
#
# An arm64 Python with TVM in FOLDER, which runs under qemu-aarch64 (Debian 12, package qemu-user): packages of the other architecture
# are unpacked there and not installed. FOLDER/python then is that Python; some 600 MB.
set -euo pipefail

folder=$(realpath -m "${1:?give a folder}")
mkdir -p "$folder"/{apt/lists/partial,apt/cache/archives/partial,debian,wheels,site}
touch "$folder/apt/status"
cat > "$folder/apt/apt.conf" <<END
APT::Architecture "arm64";
APT::Architectures {"arm64";};
APT::Sandbox::User "";
Dir::State "$folder/apt";
Dir::State::Lists "$folder/apt/lists";
Dir::State::status "$folder/apt/status";
Dir::Cache "$folder/apt/cache";
END
export APT_CONFIG="$folder/apt/apt.conf"
# Sources of other packages may have nothing for arm64.
apt-get update || true
(
    cd "$folder/apt/cache/archives"
    apt-get download python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 \
        libffi8 libbz2-1.0 liblzma5 libssl3 libsqlite3-0 libuuid1 libncursesw6 libtinfo6 libreadline8 libcrypt1
    for package in *.deb; do dpkg-deb -x "$package" "$folder/debian"; done
)
unset APT_CONFIG
platforms=(--platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64)
python3 -m pip download apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1 numpy ml_dtypes psutil cloudpickle typing_extensions \
    "${platforms[@]}" --platform manylinux2014_aarch64 --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none \
    --only-binary=:all: --no-deps -d "$folder/wheels"
python3 - "$folder" <<'END'
import pathlib
import sys
import zipfile

folder = pathlib.Path(sys.argv[1])
for wheel in sorted((folder / "wheels").glob("*.whl")):
    zipfile.ZipFile(wheel).extractall(folder / "site")
END
cat > "$folder/python" <<END
#!/bin/sh
PYTHONPATH="$folder/site" exec qemu-aarch64 -cpu max -L "$folder/debian" "$folder/debian/usr/bin/python3.11" "\$@"
END
chmod +x "$folder/python"
"$folder/python" -c "import platform, tvm; print('TVM', tvm.__version__, 'on', platform.machine())"
