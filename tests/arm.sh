#!/bin/sh
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# AArch64 under qemu-user:  sh tests/arm.sh [--all] [BUILD]
#
# Builds in BUILD (build-arm) with cross/aarch64-linux-gnu.ini, then tries three CPU models: one without dot products, one
# with them, and one with all that qemu has (i8mm, bf16). On each: the instruction sets that are chosen are the expected
# ones, the kernels that no model before had pass their checks and the checks notice broken kernels, the three commands of
# the quickstart answer as the README says, and tiny checkpoints answer the same from stored, int8 and int4 weights as on
# the first.
# At first qemu itself is tried: an instruction that a model lacks must end a program there, or the rest proves nothing.
# --all: then all suites of the build on each model, but for tests/arm_left_out.txt; of the faults that tests count
# through, the first 8 and every 16th. Takes hours.
#
# Environment: ARM_SYSROOT  the libraries (BUILD-sysroot, filled by cross/debian-sysroot.sh); ARM_MODELS  those of the three
# that are tried (all); MESON; TEST_JOBS.
# Status 77, with a line that says why, where there is no cross compiler or no library. Ends with "N passed, N failed".
set -u
cd "$(dirname "$0")/.." || exit 1
all=no
test "${1-}" != --all || {
    all=yes
    shift
}
build=${1-build-arm}
meson=${MESON:-meson}
jobs=${TEST_JOBS:-$(nproc 2>/dev/null || echo 2)}
sysroot=${ARM_SYSROOT:-$build-sysroot}
skip() {
    echo "tests/arm.sh: $1"
    exit 77
}
for program in aarch64-linux-gnu-gcc aarch64-linux-gnu-g++ qemu-aarch64; do
    command -v $program >/dev/null || skip "no $program (Debian: gcc-aarch64-linux-gnu, g++-aarch64-linux-gnu, qemu-user)"
done
sh cross/debian-sysroot.sh "$sysroot" || skip "no AArch64 libraries in $sysroot, and they could not be had"
QEMU_LD_PREFIX=$(cd "$sysroot" && pwd)
export QEMU_LD_PREFIX

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
# shellcheck source=tests/counting.sh
. tests/counting.sh

if test ! -f "$build/build.ninja"; then
    "$meson" setup "$build" --werror --buildtype=release --cross-file cross/aarch64-linux-gnu.ini \
        --cross-file "$sysroot/sysroot.ini" >"$work/log" 2>&1 || tail -n 20 "$work/log"
fi
targets='paligemma:executable tests/kernels/check tests/support/make_tiny'
test $all = no || targets=
# shellcheck disable=SC2086 # several targets
"$meson" compile -C "$build" -j "$jobs" $targets >"$work/log" 2>&1
status=$?
test $status -eq 0 || tail -n 40 "$work/log"
count "AArch64 builds without a warning" $status
test $status -eq 0 || finish
tool=$build/paligemma

# refuses MODEL OPTION INSTRUCTION: a program with it dies of SIGILL on MODEL, and does not on the model "max"
refuses() {
    printf 'int main(void) { __asm__ volatile("%s" ::: "v0"); return 0; }\n' "$3" >"$work/one.c"
    aarch64-linux-gnu-gcc "$2" -o "$work/one" "$work/one.c" && QEMU_CPU=max qemu-aarch64 "$work/one" || return 1
    (QEMU_CPU=$1 qemu-aarch64 "$work/one") >/dev/null 2>&1
    test $? -eq 132 # 128 + SIGILL
}
for triple in "cortex-a57|-march=armv8.2-a+dotprod|sdot v0.4s, v0.16b, v0.16b" \
    "cortex-a76|-march=armv8.2-a+i8mm|usmmla v0.4s, v0.16b, v0.16b" \
    "cortex-a76|-march=armv8.2-a+bf16|bfmmla v0.4s, v0.8h, v0.8h"; do
    rest=${triple#*|}
    refuses "${triple%%|*}" "${rest%%|*}" "${rest#*|}"
    count "qemu as ${triple%%|*} refuses ${rest#*|}" $?
done

emulated() { # emulated MODEL COMMAND...
    model=$1
    shift
    QEMU_CPU=$model OMP_NUM_THREADS=2 qemu-aarch64 "$@"
}
for kind in official today; do
    emulated max "$build/tests/support/make_tiny" "$work/$kind" "$kind" || exit 1
    for format in int8 int4; do
        emulated max "$tool" convert "$work/$kind" "$work/$kind-$format" --weights $format >/dev/null || exit 1
    done
done
answer() { # answer MODEL KIND-FORMAT: what the tool says
    emulated "$1" "$tool" run "$work/$2" "$work/${2%%-*}/image.jpg" "a b" -n 8
}
for kind in official today; do
    for format in '' -int8 -int4; do answer cortex-a57 $kind$format >"$work/expected-$kind$format"; done
done

# The suites of the build. Tests that start programs themselves need a kernel that starts AArch64 programs by qemu: a
# registration of our own, in namespaces, where the kernel has such (Linux 6.7); else the suites without such programs.
names_a_kernel() { # COMMAND...: with that kernel
    # shellcheck disable=SC2016 # for the inner shell
    unshare --user --map-root-user --mount sh -ec '
        mount -t binfmt_misc none "$1"
        printf "%s" ":aarch64:M::\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:$2:" >"$1/register"
        shift 2
        exec "$@"' sh "$work/binfmt" "$(command -v qemu-aarch64)" "$@"
}
suites() { # suites MODEL
    left_out=$(sed 's/#.*//' tests/arm_left_out.txt | tr -s ' \n' '  ')
    mkdir -p "$work/binfmt"
    run='' some='--suite unit --suite golden --suite robustness --suite kernels'
    if "$tool" --version >/dev/null 2>&1; then
        some='--no-suite style'
    elif names_a_kernel "$tool" --version >/dev/null 2>&1; then
        run=names_a_kernel some='--no-suite style'
    else
        echo "(no kernel that starts AArch64 programs by qemu: without the suites tool, examples and abi)"
    fi
    # shellcheck disable=SC2086 # lists of words
    TEST_LEAVE_OUT=$left_out TEST_FAULT_STEP=16 TEST_SHORT=1 QEMU_CPU=$1 $run "$meson" test -C "$build" --no-rebuild --print-errorlogs $some \
        --timeout-multiplier 200 --num-processes "$jobs" >"$work/log" 2>&1
    status=$?
    test $status -eq 0 || grep -v '^ninja: ' "$work/log"
    passed=$((passed + $(sed -n 's/^Ok: *\([0-9]*\).*/\1/p' "$work/log" | awk '{n += $1} END {print n + 0}')))
    count "$1: the suites" $status
}

# model CPU SETS MASK: on CPU the tool chooses SETS; those of MASK (PG_CPU_*) no CPU before it has
model() {
    cpu=$1
    sets=$2
    case " ${ARM_MODELS:-$cpu} " in
    *" $cpu "*) ;;
    *) return ;;
    esac
    found=$(emulated "$cpu" "$tool" info "$work/official" | sed -n 's/^kernels *//p')
    test "$found" = "$sets"
    count "$cpu: kernels $sets (found: $found)" $?
    for option in '' --selftest; do
        # shellcheck disable=SC2086 # none or one
        emulated "$cpu" "$build/tests/kernels/check" --emulated --cpu "$3" $option >"$work/log"
        status=$?
        test $status -eq 0 || tail -n 20 "$work/log"
        count "$cpu: kernels/check --cpu $3 $option" $status
    done
    for kind in official today; do
        for format in '' -int8 -int4; do
            answer "$cpu" $kind$format >"$work/text" && cmp -s "$work/text" "$work/expected-$kind$format"
            count "$cpu: the answer of a tiny checkpoint, $kind${format:- stored}" $?
        done
    done
    for prompt in "caption en" "answer en what color is the star?" "detect red circle ; yellow triangle"; do
        emulated "$cpu" "$tool" run examples/demo/model examples/demo/images/shapes.png "$prompt" >"$work/text" &&
            awk -v ask="\"$prompt\"" 'found { print; exit } index($0, ask) && /paligemma run/ { found = 1 }' README.md |
            cmp -s - "$work/text"
        count "$cpu: $prompt" $?
    done
    test $all = no || suites "$cpu"
}
model cortex-a57 "baseline, neon" 0x10001
model cortex-a76 "baseline, neon, neon_dotprod" 0x20000
model max "baseline, neon, neon_dotprod, neon_i8mm, neon_bf16" 0xc0000
finish
