#!/bin/sh
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# The library as a subproject of another project, by packaging/paligemma.wrap.in; the project's program is built and run:
#   check_subproject.sh BUILD SOURCE VERSION -- CC... -- CXX...
#   check_subproject.sh MESON ARCHIVE VERSION WRAP        the same from a release's archive and wrap file
set -eu
build=$1 source=$2 version=$3
shift 3
work=$(mktemp -d "${TMPDIR:-/tmp}/paligemma-subproject.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

cp -R "$(dirname "$0")/consumer" "$work/app"
mkdir -p "$work/app/subprojects/packagefiles"
if test "$1" = --; then
    meson=$(sed -n 's/^ *COMMAND = \(.*\) install --no-rebuild$/\1/p' "$build/build.ninja") # the one that configured the build
    shift
    CC='' CXX=''
    while test "$1" != --; do CC="$CC $1" && shift; done
    shift
    CXX=$*
    export CC CXX
    sed "s/@VERSION@/$version/; s/@SHA256@/none/" "$source/packaging/paligemma.wrap.in" >"$work/app/subprojects/paligemma.wrap"
    # What is tracked and what is not, but no build: Meson must not find the folder that it writes to in there.
    mkdir "$work/app/subprojects/libpaligemma-$version"
    for name in include lib pkgconfig python packaging meson.build meson_options.txt; do
        ln -s "$source/$name" "$work/app/subprojects/libpaligemma-$version/$name"
    done
else
    meson=$build
    cp "$1" "$work/app/subprojects/paligemma.wrap"
    cp "$source" "$work/app/subprojects/packagefiles/"
fi

run() { # run NAME COMMAND...: prints what it said when it fails
    name=$1
    shift
    "$@" >"$work/$name.log" 2>&1 || {
        echo "FAILED: $name" && cat "$work/$name.log"
        exit 1
    }
}
# shellcheck disable=SC2086 # meson may be two words
{
    run setup ${meson:-meson} setup --force-fallback-for=paligemma --buildtype=plain --fatal-meson-warnings "$work/app/build" "$work/app"
    run compile ${meson:-meson} compile -C "$work/app/build"
    run test ${meson:-meson} test --no-rebuild -C "$work/app/build"
}
run consumer "$work/app/build/consumer"
grep -q '^consumer: ok$' "$work/consumer.log" || {
    echo "FAILED: the program says $(cat "$work/consumer.log")"
    exit 1
}
used=$(ldd "$work/app/build/consumer" | awk '$1 ~ /^libpaligemma/ { print $3 }')
case $used in
"$work"/app/build/subprojects/*) echo "subproject: ok" ;;
*) echo "FAILED: the program uses the library: $used" && exit 1 ;;
esac
