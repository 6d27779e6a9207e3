#!/bin/sh
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# Old CPUs under qemu-user: nothing runs there that they do not have.  sh tests/emulate.sh BUILD
#
# On each CPU model: the instruction sets that are chosen are the expected ones, and the tool answers about an image as it
# does here, from tiny checkpoints of each weights' format. On the least model of each choice every kernel passes its check;
# the others have all instructions of that one, and the same kernels.
# At first qemu itself is tried: an instruction that a model lacks must end a program there, or the rest proves nothing.
# qemu 7.2 does not emulate AVX-512 and AVX-VNNI: those run on real CPUs only. Ends with "N passed, N failed".
# Status 77, with a line that says why, where there is no emulator.
set -u
build=${1?usage: sh tests/emulate.sh BUILD}
qemu=${QEMU:-qemu-x86_64}
tool=$build/paligemma
if test "$(uname -m)" != x86_64 || ! command -v "$qemu" >/dev/null; then
    echo "tests/emulate.sh: no $qemu, or no x86-64 here"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=tests/counting.sh
. "$(dirname "$0")/counting.sh"
emulated() { # emulated MODEL COMMAND...
    model=$1
    shift
    OMP_NUM_THREADS=2 "$qemu" -cpu "$model" "$@" 2>"$work/err"
    emulated_status=$?
    grep -v "TCG doesn't support" "$work/err" >&2
    return $emulated_status
}

# refuses MODEL INSTRUCTION: a program with it dies of SIGILL on MODEL, and does not on the model "max"
refuses() {
    printf 'int main(void) { __asm__ volatile("%s" ::: "xmm0"); return 0; }\n' "$2" >"$work/one.c"
    ${CC:-cc} -o "$work/one" "$work/one.c" && emulated max "$work/one" || return 1
    (emulated "$1" "$work/one") >/dev/null 2>&1
    test $? -eq 132 # 128 + SIGILL
}
for pair in "Nehalem:vpaddd %%%%ymm0, %%%%ymm0, %%%%ymm0" "Nehalem:vaddps %%%%xmm0, %%%%xmm0, %%%%xmm0" \
    "Haswell,-fma:vfmadd231ps %%%%ymm0, %%%%ymm0, %%%%ymm0" "qemu64:pshufb %%%%xmm0, %%%%xmm0"; do
    refuses "${pair%%:*}" "$(printf "${pair#*:}")"
    count "qemu as ${pair%%:*} refuses $(printf "${pair#*:}" | sed 's/%%/%/g')" $?
done

for kind in official today; do
    "$build/tests/support/make_tiny" "$work/$kind" "$kind" || exit 1
    for format in int8 int4; do
        "$tool" convert "$work/$kind" "$work/$kind-$format" --weights $format >/dev/null || exit 1
    done
done

# kernels CPU MASK: the kernels of MASK (PG_CPU_*), which CPU has, pass their checks
kernels() {
    emulated "$1" "$build/tests/kernels/check" --emulated --cpu "$2" >"$work/log"
    status=$?
    test $status -eq 0 || tail -n 20 "$work/log"
    count "$1: kernels pass their checks" $status
}
# model CPU SETS: on CPU the tool chooses SETS
model() {
    cpu=$1
    sets=$2
    found=$(emulated "$cpu" "$tool" info "$work/official" | sed -n 's/^kernels *//p')
    test "$found" = "$sets"
    count "$cpu: kernels $sets (found: $found)" $?
    for kind in official today; do
        for format in '' -int8 -int4; do
            emulated "$cpu" "$tool" run "$work/$kind$format" "$work/$kind/image.jpg" "a b" -n 8 >"$work/text" &&
                "$tool" run "$work/$kind$format" "$work/$kind/image.jpg" "a b" -n 8 >"$work/expected" &&
                cmp -s "$work/text" "$work/expected"
            count "$cpu: the answer of a tiny checkpoint, $kind${format:- stored}" $?
        done
    done
}
model qemu64 baseline
kernels qemu64 0x1
model Nehalem baseline
model SandyBridge baseline
model Haswell,-fma baseline
model Haswell,-xsave baseline
model Haswell "baseline, avx2"
kernels Haswell 0x2
model Skylake-Server "baseline, avx2"
model EPYC "baseline, avx2"
finish
