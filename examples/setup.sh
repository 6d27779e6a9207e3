#!/bin/sh
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# Puts in place what the build or the tests need:  sh examples/setup.sh build|test
#   build   compilers, Meson, and the libraries that libpaligemma links
#   test    those, and cmocka, clang with clang-format and clang-tidy, the sanitizers' runtime, CMake, Doxygen, locales,
#           qemu-user, Python with venv, numpy, pytest and setuptools; and where apt has them rustc, Mono and SDL2,
#           without which the tests of these languages are skipped, and examples/game is not built
# Nothing is installed when everything is there. Packages come through apt (Debian 12 is what we
# test on); on another system the missing ones are named, with status 1.
set -eu

case ${1-} in
build | test) what=$1 ;;
*)
    echo "usage: sh examples/setup.sh build|test" >&2
    exit 2
    ;;
esac

missing=
need() { # need PACKAGE COMMAND...: PACKAGE is missing unless the command succeeds
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
has() { command -v "$1"; }
meson_is_1() { test "$(${MESON:-meson} --version | cut -d. -f1)" -ge 1; }
compiles() { # compiles COMPILER...: a program builds with it
    printf 'int main(void) { return 0; }\n' | "$@" -o /dev/null -
}

need gcc has gcc
need libc6-dev compiles gcc -x c
need g++ compiles g++ -x c++
need meson meson_is_1
need ninja-build has ninja
need pkg-config has pkg-config
need libpng-dev pkg-config --exists libpng
need libjpeg-dev pkg-config --exists libjpeg
need libsentencepiece-dev pkg-config --exists sentencepiece
need libjansson-dev pkg-config --exists jansson
need zlib1g-dev pkg-config --exists zlib
# Optional: editing keys in `paligemma ask`.
if has apt-get >/dev/null 2>&1; then need libedit-dev pkg-config --exists libedit; fi
if test "$what" = test; then
    need binutils has nm
    test "$(uname -m)" != x86_64 || need musl-tools has musl-gcc
    need libcmocka-dev pkg-config --exists cmocka
    need clang has clang
    need clang-format has clang-format
    need clang-tidy has clang-tidy
    need libclang-rt-dev compiles clang -x c -fsanitize=address,undefined
    need libomp-dev compiles clang -x c -fopenmp
    need doxygen has doxygen
    need cmake has cmake
    need locales test -e /usr/share/i18n/locales/de_DE # a locale with a decimal comma is made of it
    test "$(uname -m)" != x86_64 || need qemu-user has qemu-x86_64
    need python3 has python3
    need python3-venv python3 -c 'import ensurepip, venv'
    need python3-numpy python3 -c 'import numpy'
    need python3-pytest python3 -c 'import pytest'
    need python3-setuptools python3 -c 'import setuptools'
    need python3-wheel python3 -c 'import wheel'
fi
# Rust, C# and SDL2: 20 MB of Mono and 270 MB of Rust, 12 s; SDL2 with what it needs, 13 s. What cannot be had is done without.
optional=
if test "$what" = test && has apt-get >/dev/null 2>&1; then
    required=$missing
    missing=
    need rustc test -x /usr/bin/rustc # Debian's, not a newer one in the PATH
    need mono-mcs has mcs
    need mono-runtime has mono
    need libsdl2-dev pkg-config --exists sdl2
    optional=$missing
    missing=$required
fi
test -n "$missing$optional" || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: not found here:$missing (names of Debian packages); install them and try again" >&2
    exit 1
fi
root=
if test "$(id -u)" != 0; then
    if ! command -v sudo >/dev/null 2>&1; then
        test -n "$missing" || exit 0
        echo "setup: as root, run: apt-get install$missing" >&2
        exit 1
    fi
    root=sudo
fi
install() {
    echo "setup: installing $*" >&2
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >&2
}
$root apt-get update >&2 || true # old lists may still do
# shellcheck disable=SC2086
test -z "$missing" || install $missing
# shellcheck disable=SC2086
test -z "$optional" || install $optional || echo "setup: without$optional; tests of Rust, C# or the game are left out" >&2
