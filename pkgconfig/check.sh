#!/bin/sh
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# Installs the build into an empty folder and uses what lies there as an application would:
# shared and static, from C and from C++, with the flags of paligemma.pc alone, and with CMake (the package, also moved). The tool runs from there too.
#   check.sh BUILD SOURCE PREFIX LIBDIR SANITIZE both|shared|static tool|no-tool SOVERSION VERSION COMPILER
# shellcheck disable=SC2086 # flags are lists of words
set -eu
build=$1 source=$2 prefix=$3 libdir=$4 sanitize=$5 library=$6 tool=$7 soversion=$8 version=$9
built_with=${10}
work=$(mktemp -d "${TMPDIR:-/tmp}/paligemma-install.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
failed=0
fail() {
    echo "FAILED: $*"
    failed=1
}

dest=$work/dest
meson=$(sed -n 's/^ *COMMAND = \(.*\) install --no-rebuild$/\1/p' "$build/build.ninja") # the one that configured the build
(cd "$build" && DESTDIR=$dest ${meson:-meson} install --no-rebuild --quiet) >"$work/log" 2>&1 || {
    cat "$work/log"
    exit 1
}
root=$dest$prefix lib=$dest$prefix/$libdir
expected="include/paligemma/paligemma.h include/paligemma/version.h $libdir/pkgconfig/paligemma.pc"
expected="$expected $libdir/cmake/paligemma/paligemma-config.cmake $libdir/cmake/paligemma/paligemma-config-version.cmake"
kinds="shared static"
case $library in shared | static) kinds=$library ;; esac
for kind in $kinds; do
    case $kind in
    shared) expected="$expected $libdir/libpaligemma.so $libdir/libpaligemma.so.$soversion $libdir/libpaligemma.so.$version" ;;
    static) expected="$expected $libdir/libpaligemma.a" ;;
    esac
done
test "$tool" = no-tool || expected="$expected bin/paligemma share/man/man1/paligemma.1"
for file in $expected; do
    test -e "$root/$file" || fail "not installed: $file"
done
if test "$library" != static; then
    found=$(objdump -p "$lib/libpaligemma.so" | awk '$1 == "SONAME" { print $2 }')
    test "$found" = "libpaligemma.so.$soversion" || fail "soname: found $found, expected libpaligemma.so.$soversion"
    leaked=$(nm -D --defined-only "$lib/libpaligemma.so" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | grep -v '^pg_' || true)
    test -z "$leaked" || fail "exported besides pg_*: $leaked"
fi

# The copy knows where the files lie now; nothing else is changed in it.
sed "s|^prefix=.*|prefix=$root|" "$lib/pkgconfig/paligemma.pc" >"$work/paligemma.pc"
PKG_CONFIG_PATH=$work${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
export PKG_CONFIG_PATH
pc=${PKG_CONFIG:-pkg-config}
test "$($pc --variable=api_version paligemma)" = "$version" || fail "paligemma.pc: api_version"
cflags=$($pc --cflags paligemma)
shared=$($pc --libs paligemma)
static=$($pc --static --libs paligemma | sed 's/-lpaligemma/-l:libpaligemma.a/')
if test "$library" != static; then
    case " $shared " in *stdc++* | *sentencepiece*) fail "--libs names private libraries: $shared" ;; esac
fi
# clang leaves the C++ part of its sanitizers out of a C link; the tokenizer inside the library asks for it.
san='' san_libs=''
if test "$sanitize" != none; then
    san=-fsanitize=$sanitize
    if test "$built_with" = clang; then san="$san -fsanitize-link-c++-runtime" san_libs=-lstdc++; fi
fi

warn="-Wall -Wextra -Werror -pedantic"
found_compiler=0
for pair in "gcc g++" "clang clang++"; do
    cc=${pair% *} cxx=${pair#* }
    command -v "$cc" >/dev/null || continue
    command -v "$cxx" >/dev/null || continue
    # A sanitizer's runtime has to be that of the compiler that built the library.
    test "$sanitize" = none || test "$cc" = "$built_with" || continue
    found_compiler=1
    for kind in $kinds; do
        # The OpenMP runtime behind -fopenmp is the compiler's own, so static is for the compiler that built the library.
        test $kind = shared || test "$cc" = "$built_with" || continue
        test $kind = shared && libs=$shared || libs=$static
        $cc -std=c99 $warn $san $cflags "$source/pkgconfig/consumer/consumer.c" -o "$work/$kind-c" $libs $san_libs ||
            fail "$cc, $kind: does not link: $libs"
        $cxx -x c++ -std=c++11 $warn $san $cflags "$source/pkgconfig/consumer/consumer.c" -x none -o "$work/$kind-c++" $libs ||
            fail "$cxx, $kind: does not link: $libs"
        for program in "$work/$kind-c" "$work/$kind-c++"; do
            test -x "$program" || continue
            if test $kind = shared; then
                LD_LIBRARY_PATH=$lib "$program" >"$work/out" 2>&1 || fail "$cc, ${program##*/}: $(cat "$work/out")"
            else
                "$program" >"$work/out" 2>&1 || fail "$cc, ${program##*/}: $(cat "$work/out")"
                objdump -p "$program" | grep -q 'NEEDED.*libpaligemma' && fail "$program: linked with the shared library"
            fi
            rm -f "$program"
        done
    done
    echo "$cc: checked"
done
test $found_compiler = 1 || fail "no compiler found"

# A program that was compiled for the next MINOR sees that it is not for this library.
if test "$library" != static; then
    mkdir "$work/next" && cp -r "$root/include/paligemma" "$work/next/"
    awk '/^#define PG_API_VERSION_MINOR / { $3++ } { print }' "$root/include/paligemma/version.h" >"$work/next/paligemma/version.h"
    "$built_with" -std=c99 $san -I "$work/next" "$source/pkgconfig/consumer/consumer.c" -o "$work/next/consumer" $shared $san_libs ||
        fail "the program for the next MINOR does not link"
    if LD_LIBRARY_PATH=$lib "$work/next/consumer" >"$work/out" 2>&1; then
        fail "a program for the next MINOR runs with this library"
    fi
    grep -q '^version: not compatible' "$work/out" || fail "a program for the next MINOR: $(cat "$work/out")"
fi

# With CMake: through paligemma.pc, which gives the shared library, and by the CMake package, which lies in a folder that
# nothing was configured for. Debian's CMake too, where another one comes first.
with_cmake() { # with_cmake NAME OPTION...: an application is configured, built and run
    name=$1
    shift
    {
        env -u CFLAGS -u LDFLAGS "$cmake" -S "$source/pkgconfig/consumer" -B "$work/$name" -DCMAKE_C_COMPILER="$built_with" \
            -DCMAKE_C_FLAGS="$san" -DCMAKE_EXE_LINKER_FLAGS="${san_libs:+-Wl,--no-as-needed $san_libs}" "$@" &&
            "$cmake" --build "$work/$name" &&
            env -u LD_LIBRARY_PATH "$work/$name/consumer"
    } >"$work/out" 2>&1 || fail "$cmake, $name: $(cat "$work/out")"
    if grep -i -A 5 'warning' "$work/out"; then fail "$cmake, $name: a warning"; fi
}
package_version=$($pc --modversion paligemma)
found_cmake=
for cmake in "$(command -v cmake || true)" /usr/bin/cmake; do
    "$cmake" --version >/dev/null 2>&1 || continue
    test "$("$cmake" --version)" != "$found_cmake" || continue
    found_cmake=$("$cmake" --version)
    rm -rf "$work/cmake" "$work/moved" "$work"/cmake-*
    mkdir "$work/moved" && cp -R "$root" "$work/moved/there"
    for kind in $kinds; do
        if test $kind = shared; then
            with_cmake cmake -DBY=pkg-config
            with_cmake cmake-shared -DCMAKE_PREFIX_PATH="$work/moved/there" -DVERSION="$package_version"
        else
            with_cmake cmake-static -DCMAKE_PREFIX_PATH="$work/moved/there" -DSTATIC=ON
            test ! -x "$work/cmake-static/consumer" ||
                ! objdump -p "$work/cmake-static/consumer" | grep 'NEEDED.*libpaligemma' || fail "CMake: linked with the shared library"
        fi
    done
    echo "cmake: checked, $found_cmake" | head -n 1
done
test -n "$found_cmake" || echo "cmake: skipped, it is not installed"

# The tool finds the installed library by itself, and no other.
if test "$tool" = tool && test -x "$root/bin/paligemma"; then
    if test "$library" != static; then
        used=$(env -u LD_LIBRARY_PATH ldd "$root/bin/paligemma" | awk '$1 ~ /^libpaligemma/ { print $3 }')
        test "$(readlink -f "$used")" = "$(readlink -f "$lib/libpaligemma.so")" || fail "the installed tool uses the library: $used"
    fi
    env -u LD_LIBRARY_PATH "$root/bin/paligemma" --version >"$work/out" 2>&1 || fail "paligemma --version: $(cat "$work/out")"
    grep -q "API $version" "$work/out" || fail "paligemma --version says $(cat "$work/out"), expected API $version"
fi
exit $failed
