#!/bin/sh
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# Debian's AArch64 libraries that the build and the tests need, in a folder:  sh cross/debian-sysroot.sh FOLDER
#
# Downloads packages with apt and unpacks them there; nothing is installed, and no right is needed. (As a foreign
# architecture they cannot all be installed: libsentencepiece-dev of two architectures exclude each other.)
# FOLDER/sysroot.ini is for Meson, beside cross/aarch64-linux-gnu.ini. Nothing happens where that is there.
set -eu
test $# -eq 1 || {
    echo "usage: sh cross/debian-sysroot.sh FOLDER" >&2
    exit 2
}
mkdir -p "$1"
root=$(cd "$1" && pwd)
test ! -f "$root/sysroot.ini" || exit 0
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
    echo "$0: found no apt-get and dpkg-deb; unpack the AArch64 libraries of this system by hand" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
: >"$work/state/status"
cat >"$work/apt.conf" <<END
APT::Architecture "arm64";
APT::Architectures "arm64";
APT::Install-Recommends "false";
APT::Sandbox::User "$(id -un)";
Dir::State "$work/state";
Dir::State::status "$work/state/status";
Dir::Cache "$work/cache";
Debug::NoLocking "true";
END
export APT_CONFIG="$work/apt.conf"
apt-get -qq update
apt-get -qq --yes --download-only install libc6-dev libstdc++-12-dev libgomp1 libpng-dev libjpeg62-turbo-dev zlib1g-dev \
    libsentencepiece-dev libjansson-dev libcmocka-dev libedit-dev >/dev/null
for package in "$work"/cache/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
# Links to /lib/... mean the folder's.
find "$root" -type l -lname '/*' | while read -r link; do
    ln -sfn "$(realpath -m --relative-to="$(dirname "$link")" "$root$(readlink "$link")")" "$link"
done
cat >"$root/sysroot.ini" <<END
[constants]
root = '$root'
[properties]
sys_root = root
pkg_config_libdir = root / 'usr/lib/aarch64-linux-gnu/pkgconfig'
[built-in options]
c_args = ['--sysroot=' + root]
cpp_args = ['--sysroot=' + root]
c_link_args = ['--sysroot=' + root]
cpp_link_args = ['--sysroot=' + root]
END
