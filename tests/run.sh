#!/bin/sh
# Every test:  sh tests/run.sh [--oracle]
#
# Installs what is missing (examples/setup.sh), builds three times, runs all suites in each build, and ends with the line
# "N passed, N failed"; the exit status is 1 when something failed.
#
#   gcc        release, warnings are errors
#   sanitized  clang, address + undefined + leak sanitizers, warnings are errors
#   serial     gcc, without OpenMP, the static library alone
#
# Then, on the first build, old CPUs under qemu-user (emulate.sh, where qemu-x86_64 is there), and the Python package,
# installed with pip into an environment of its own.
#
# --oracle also compares with transformers on fresh random checkpoints, in a virtual environment that is made on the first run.
#
# Environment: MESON, PYTHON, CC_GCC, CC_CLANG  the programs;  TEST_BUILD  folder of the builds (build-test);
# ORACLE_VENV  a virtual environment with the packages below (.venv);  ORACLE_CASES  checkpoints to compare (40);
# ORACLE_FORWARD  checkpoints for batches (12);  ORACLE_BATCHES  batches for the processor (1000);  ORACLE_SEED  the first
# seed of each (fresh);  TEST_JOBS  at a time (the CPUs, at most 8).
set -u
cd "$(dirname "$0")/.." || exit 1
top=$(pwd)

oracle=no
case "${1-}" in
'') ;;
--oracle) oracle=yes ;;
*)
    echo "usage: sh tests/run.sh [--oracle]" >&2
    exit 2
    ;;
esac

meson=${MESON:-meson}
python=${PYTHON:-python3}
builds=${TEST_BUILD:-$top/build-test}
jobs=${TEST_JOBS:-$(nproc 2>/dev/null || echo 2)}
test "$jobs" -le 8 || jobs=8
oracle_packages="torch==2.13.0 transformers==5.23.0 sentencepiece protobuf pillow safetensors numpy pytest"
passed=0
failed=0
started=$(date +%s)

title() { printf '\n== %s (after %d s)\n' "$1" $(($(date +%s) - started)); }
finish() {
    printf '\ntook %d s\n' $(($(date +%s) - started))
    printf '%d passed, %d failed\n' "$passed" "$failed"
    test "$failed" -eq 0
    exit
}
# step NAME COMMAND...: counts one; its output is shown when it fails.
step() {
    step_name=$1
    shift
    if "$@" >"$builds/step.log" 2>&1; then
        passed=$((passed + 1))
        echo "ok    $step_name"
    else
        failed=$((failed + 1))
        tail -n 60 "$builds/step.log"
        echo "FAIL  $step_name: $*"
        return 1
    fi
}
# add_counts LOG: the "N passed, N failed" that ends a log; no such line is a failure.
add_counts() {
    counts=$(sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p' "$1" | tail -n 1)
    if test -n "$counts"; then
        passed=$((passed + ${counts% *}))
        failed=$((failed + ${counts#* }))
    else
        failed=$((failed + 1))
        echo "FAIL  $2 ended without its counts"
    fi
}

mkdir -p "$builds" || finish
title "what the tests need"
if ! step "packages" sh examples/setup.sh test; then finish; fi
meson_version=$("$meson" --version)
echo "meson $meson_version, $(${CC_GCC:-gcc} --version | head -n 1), $(${CC_CLANG:-clang} --version | head -n 1)"

# build NAME COMPILER C++COMPILER OPTION...: configures anew what is there, and builds.
build() {
    name=$1
    cc=$2
    cxx=$3
    shift 3
    title "$name: build"
    test ! -f "$builds/$name/build.ninja" || set -- "$@" --wipe
    step "$name configures" env CC="$cc" CXX="$cxx" "$meson" setup "$builds/$name" "$top" --werror -Dcmocka=enabled "$@" &&
        step "$name builds without a warning" "$meson" compile -C "$builds/$name" -j "$jobs"
}

# run_suites NAME [meson test option...]: adds what meson counts.
run_suites() {
    name=$1
    shift
    title "$name: tests"
    log=$builds/$name.log
    # print_stacktrace and halting come on top of what Meson sets; a leak in code that is not ours is named in the file
    ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:check_initialization_order=1:halt_on_error=1:abort_on_error=1 \
        UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:abort_on_error=1 \
        LSAN_OPTIONS=suppressions="$top/tests/lsan.supp":print_suppressions=0 \
        "$meson" test -C "$builds/$name" --no-rebuild --print-errorlogs --num-processes "$jobs" "$@" >"$log" 2>&1
    status=$?
    grep -v '^ninja: ' "$log"
    ok=$(sed -n 's/^\(Ok\|Expected Fail\): *\([0-9][0-9]*\).*/\2/p' "$log" | awk '{n += $1} END {print n + 0}')
    bad=$(sed -n 's/^\(Fail\|Unexpected Pass\|Timeout\): *\([0-9][0-9]*\).*/\2/p' "$log" | awk '{n += $1} END {print n + 0}')
    # nothing ran, or Meson itself failed
    if test "$bad" -eq 0 && { test "$status" -ne 0 || test "$ok" -eq 0; }; then bad=1; fi
    passed=$((passed + ok))
    failed=$((failed + bad))
}

gcc=${CC_GCC:-gcc}
clang=${CC_CLANG:-clang}
if build gcc "$gcc" "$(echo "$gcc" | sed 's/gcc/g++/')" --buildtype=release; then run_suites gcc; fi
if build sanitized "$clang" "$(echo "$clang" | sed 's/clang/clang++/')" --buildtype=debugoptimized \
    -Db_sanitize=address,undefined -Db_lundef=false -Dc_args=-fno-sanitize-recover=all -Dcpp_args=-fno-sanitize-recover=all; then
    run_suites sanitized --timeout-multiplier 5
fi
if build serial "$gcc" "$(echo "$gcc" | sed 's/gcc/g++/')" --buildtype=release -Dopenmp=disabled -Ddefault_library=static; then
    run_suites serial --suite unit --suite golden
fi

if command -v qemu-x86_64 >/dev/null 2>&1 && test "$(uname -m)" = x86_64; then
    title "old CPUs, emulated"
    CC=$gcc sh tests/emulate.sh "$builds/gcc" >"$builds/emulate.log" 2>&1
    tail -n 100 "$builds/emulate.log"
    add_counts "$builds/emulate.log" "tests/emulate.sh"
fi

# python_suite PYTHON LOG: the tests of python/ with the library of the release build; what PYTHON lacks is skipped there.
python_suite() {
    PALIGEMMA_LIBRARY=$builds/gcc/lib PYTHONPATH=$builds/pytest PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 \
        "$1" -m pytest -q -rs -p no:cacheprovider python/tests >"$2" 2>&1
    tail -n 60 "$2"
    add_counts "$2" "python/tests"
}

title "the Python package: numpy alone"
venv=$builds/python
if step "virtual environment" "$python" -m venv --clear --system-site-packages "$venv" &&
    step "numpy, pytest" sh -c "\"$venv/bin/python\" -c 'import numpy, pytest' || \"$venv/bin/python\" -m pip install --quiet numpy pytest" &&
    step "pip install ./python" sh tests/install_python.sh "$venv/bin/python" "$builds/gcc/lib"; then
    python_suite "$venv/bin/python" "$builds/python.log"
fi

if test "$oracle" = yes; then
    title "the reference: virtual environment"
    venv=${ORACLE_VENV:-$top/.venv}
    if ! "$venv/bin/python" -c 'import torch, transformers, sentencepiece, safetensors, PIL' >/dev/null 2>&1; then
        # shellcheck disable=SC2086
        step "virtual environment" "$python" -m venv "$venv" &&
            step "pip install $oracle_packages" "$venv/bin/python" -m pip install --quiet $oracle_packages
    fi
    "$venv/bin/python" -c 'import torch, transformers; print("torch", torch.__version__, "transformers", transformers.__version__)' || {
        failed=$((failed + 1))
        finish
    }
    title "the Python package beside transformers"
    if "$venv/bin/python" -c 'import pytest' 2>/dev/null ||
        step "pytest" "$venv/bin/python" -m pip install --quiet --target "$builds/pytest" pytest; then
        python_suite "$venv/bin/python" "$builds/python-oracle.log"
        step "finetune.py: the loss on our batches and on transformers'" env PALIGEMMA_LIBRARY="$builds/gcc/lib" \
            HF_HUB_OFFLINE=1 "$venv/bin/python" examples/finetune.py --compare --steps 8 --fresh 4
    fi
    # live TITLE SCRIPT OPTION...: a script of tests/oracle that ends with its counts
    live() {
        title "$1"
        script=$2
        shift 2
        HF_HUB_OFFLINE=1 "$venv/bin/python" "tests/oracle/$script" --build "$builds/gcc" "$@" 2>&1 | tee "$builds/live.log"
        add_counts "$builds/live.log" "$script"
    }
    seed=${ORACLE_SEED:+--seed $ORACLE_SEED}
    # shellcheck disable=SC2086
    live "live comparison with transformers: pictures and text" live.py --count "${ORACLE_CASES:-40}" $seed
    # shellcheck disable=SC2086
    live "live: the processor's batches" processor_live.py --count "${ORACLE_BATCHES:-1000}" $seed
    # shellcheck disable=SC2086
    live "live: forward, batched generation, embeddings" forward_live.py --count "${ORACLE_FORWARD:-12}" $seed
    title "tokenizers of every kind against transformers"
    step "fuzz_tokenizers.py" env HF_HUB_OFFLINE=1 "$venv/bin/python" tests/oracle/fuzz_tokenizers.py \
        "$builds/gcc/tests/oracle/tokenize_lines" --texts 2000
    step "big_vision.py" env HF_HUB_OFFLINE=1 "$venv/bin/python" tests/oracle/big_vision.py "$builds/gcc" --count 60
    if test -f examples/demo/model/model.safetensors; then
        live "the demo model on fresh pictures" demo.py
    fi
fi
finish
