#!/bin/sh
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# From a fresh clone to a model that talks about an image:  sh examples/quickstart.sh
# Installs what is missing, builds into build-quickstart/, then captions an image, asks a question
# about it and detects objects in it, with the small demo checkpoint in examples/demo/.
set -eu
cd "$(dirname "$0")/.."

say() { printf '\n%s\n' "$*" >&2; }

sh examples/setup.sh build
build=build-quickstart
say "Building in $build/ ..."
test -f "$build/build.ninja" || ${MESON:-meson} setup --buildtype=release -Dtests=false "$build" >"$build.log" 2>&1 || {
    cat "$build.log" >&2
    exit 1
}
rm -f "$build.log"
${NINJA:-ninja} -C "$build" >&2

model=examples/demo/model
image=examples/demo/images/shapes.png
show() {
    printf '\n$ %s/paligemma run %s %s "%s"\n' "$build" "$model" "$image" "$1"
    "$build/paligemma" run "$model" "$image" "$1"
}
show "caption en"
show "answer en what color is the star?"
show "detect red circle ; yellow triangle"
say "A box is top, left, bottom, right, in 1/1023 of the height and width."
say "The tool is $build/paligemma (--help tells more); the same in C is examples/caption.c."
