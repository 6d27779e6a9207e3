#!/bin/sh
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# The libraries that a build for Windows and its tests need, in a folder:  sh cross/windows-sysroot.sh FOLDER
#
# zlib is Debian's package for mingw-w64; libpng, libjpeg-turbo, jansson and cmocka are built from Debian's source
# packages, with Debian's changes, as static libraries. Nothing is installed, and no right is needed; it takes a minute.
# FOLDER/sysroot.ini is for Meson, beside cross/x86_64-w64-mingw32.ini. Nothing happens where that is there.
set -eu
test $# -eq 1 || {
    echo "usage: sh cross/windows-sysroot.sh FOLDER" >&2
    exit 2
}
mkdir -p "$1"
root=$(cd "$1" && pwd)
test ! -f "$root/sysroot.ini" || exit 0
for program in apt-get dpkg-deb dpkg-source cmake ninja x86_64-w64-mingw32-gcc-posix x86_64-w64-mingw32-g++-posix; do
    command -v $program >/dev/null || {
        echo "$0: found no $program, expected it (Debian: dpkg-dev, cmake, ninja-build, g++-mingw-w64-x86-64-posix)" >&2
        exit 1
    }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# The system's sources of packages, and of their source packages.
mkdir -p "$work/apt/parts" "$work/state/lists/partial" "$work/cache/archives/partial" "$work/source"
etc=/etc/apt
for file in "$etc"/sources.list.d/*.sources; do
    test ! -f "$file" || sed 's/^Types:.*/Types: deb deb-src/' "$file" >"$work/apt/parts/$(basename "$file")"
done
for file in "$etc"/sources.list "$etc"/sources.list.d/*.list; do
    test ! -f "$file" || sed -n '/^deb /{p;s/^deb /deb-src /p;}' "$file" >"$work/apt/parts/$(basename "$file" .list).list"
done
: >"$work/state/status"
cat >"$work/apt.conf" <<END
APT::Install-Recommends "false";
APT::Sandbox::User "$(id -un)";
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "$work/apt/parts";
Dir::State "$work/state";
Dir::State::status "$work/state/status";
Dir::Cache "$work/cache";
Debug::NoLocking "true";
END
export APT_CONFIG="$work/apt.conf"
apt-get -qq update || true # a source without source packages is no loss
cd "$work/source"
apt-get -qq download libz-mingw-w64-dev
dpkg-deb -x libz-mingw-w64-dev_*.deb zlib
mkdir -p "$root/include" "$root/lib/pkgconfig"
cp zlib/usr/x86_64-w64-mingw32/include/*.h "$root/include/"
cp zlib/usr/x86_64-w64-mingw32/lib/libz.a "$root/lib/"
cat >"$root/lib/pkgconfig/zlib.pc" <<END
prefix=$root
Name: zlib
Description: zlib
Version: $(sed -n 's/^#define ZLIB_VERSION "\([0-9.]*\).*/\1/p' "$root/include/zlib.h")
Libs: -L\${prefix}/lib -lz
Cflags: -I\${prefix}/include
END

cat >toolchain.cmake <<END
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR AMD64)
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc-posix)
set(CMAKE_RC_COMPILER x86_64-w64-mingw32-windres)
set(CMAKE_FIND_ROOT_PATH "$root")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
END
codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
# build SOURCE-PACKAGE CMAKE-OPTIONS...
build() {
    package=$1
    shift
    apt-get -qq source --download-only "$package" 2>log ||
        apt-get -qq source --download-only "$package/$codename" || { cat log >&2 && exit 1; } # no security updates there
    dpkg-source --no-check -x "$package"_*.dsc "$package" >log 2>&1 || { cat log >&2 && exit 1; }
    { cmake -S "$package" -B "$package-build" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$work/source/toolchain.cmake" \
        -DCMAKE_INSTALL_PREFIX="$root" -DCMAKE_INSTALL_LIBDIR=lib -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_POLICY_VERSION_MINIMUM=3.5 "$@" &&
        cmake --build "$package-build" --target install; } >log 2>&1 || { tail -n 40 log >&2 && exit 1; }
}
build libpng1.6 -DPNG_SHARED=OFF -DPNG_STATIC=ON -DPNG_TESTS=OFF
build libjpeg-turbo -DCMAKE_INSTALL_LIBDIR="$root/lib" -DENABLE_SHARED=OFF -DENABLE_STATIC=ON -DWITH_TURBOJPEG=OFF
build jansson -DJANSSON_BUILD_SHARED_LIBS=OFF -DJANSSON_BUILD_DOCS=OFF -DJANSSON_WITHOUT_TESTS=ON \
    -DJANSSON_EXAMPLES=OFF
build cmocka -DCMAKE_C_FLAGS=-D__USE_MINGW_ANSI_STDIO=1 -DWITH_STATIC_LIB=ON -DWITH_EXAMPLES=OFF -DUNIT_TESTING=OFF
mv "$root/lib/libcmocka-static.a" "$root/lib/libcmocka.a"
rm "$root/lib/libcmocka.dll.a"
cat >"$root/sysroot.ini" <<END
[properties]
pkg_config_libdir = ['$root/lib/pkgconfig']
END
