#!/bin/sh
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# Every test:  sh tests/run.sh [--oracle]
#
# Installs what is missing (examples/setup.sh), builds four times, runs the suites of each build, and ends with the line
# "N passed, N failed"; the exit status is 1 when something failed.
#
#   gcc               release, warnings are errors
#   sanitized         clang, address + undefined + leak sanitizers, warnings are errors
#   pthread           gcc, without OpenMP and sentencepiece, the static library alone
#   thread-sanitized  the same with ThreadSanitizer: the suite threads alone
#
# On the first build also clang-tidy, and the Python package, installed with pip into an environment of its own. Beside all
# that follows the first build's suites: old CPUs under qemu-user (emulate.sh), AArch64 (arm.sh) and Windows under Wine
# (windows.sh), where there are the emulators.
#
# --oracle also compares with transformers on fresh random checkpoints, in a virtual environment that is made on the first
# run (run_oracle.sh). run_steps.sh has the functions. While you work, `meson test -C build` is quicker (CONTRIBUTING.md).
#
# Environment: MESON, PYTHON, CC_GCC, CC_CLANG  the programs;  TEST_BUILD  folder of the builds (build-test);
# ORACLE_VENV  a virtual environment with the packages of run_oracle.sh (.venv);  ORACLE_CASES  checkpoints to compare (15);
# ORACLE_FORWARD  checkpoints for batches (5);  ORACLE_BATCHES  batches for the processor (500);  ORACLE_IMAGES  image
# files (3000);  ORACLE_ADAPTERS  adapters beside PEFT (6);  ORACLE_TRAINING  checkpoints to train on (4);  ORACLE_SEED  the
# first seed of each (fresh);  ORACLE_VENV_2  the second, with the next transformers (.venv-5.24.0);  TEST_JOBS  at a time
# (the CPUs, at most 8).
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
# shellcheck source=tests/run_steps.sh
. tests/run_steps.sh

mkdir -p "$builds" || finish
title "what the tests need"
if ! step "packages" sh examples/setup.sh test; then finish; fi
meson_version=$("$meson" --version)
echo "meson $meson_version, $(${CC_GCC:-gcc} --version | head -n 1), $(${CC_CLANG:-clang} --version | head -n 1)"

gcc=${CC_GCC:-gcc}
clang=${CC_CLANG:-clang}

# The emulators keep one CPU busy for minutes. They run beside all that follows the tests that measure time.
emulations() {
    CC=$gcc sh tests/emulate.sh "$builds/gcc" >"$builds/emulate.log" 2>&1
    echo $? >"$builds/emulate.status"
    TEST_JOBS=1 sh tests/arm.sh "$builds/arm" >"$builds/arm.log" 2>&1
    echo $? >"$builds/arm.status"
    TEST_JOBS=1 sh tests/windows.sh "$builds/windows" >"$builds/windows.log" 2>&1
    echo $? >"$builds/windows.status"
}
end() {
    wait "$emulations"
    for name in emulate arm windows; do
        title "tests/$name.sh"
        tail -n 100 "$builds/$name.log"
        test "$(cat "$builds/$name.status")" = 77 || add_counts "$builds/$name.log" "tests/$name.sh"
    done
    finish
}

if build gcc "$gcc" "$(echo "$gcc" | sed 's/gcc/g++/')" --buildtype=release; then
    run_suites gcc
    rm -f "$builds/emulate.status" "$builds/arm.status" "$builds/windows.status"
    emulations &
    emulations=$!
    nice "$builds/gcc/tests/robustness/soak" --seconds 60 >"$builds/soak.log" 2>&1 & # it waits for the disk, mostly
    soak=$!
    step "clang-tidy" "$python" tests/style/check.py tidy "$top" "$builds/gcc"
    wait "$soak"
    soak=$?
    step "soak, 60 seconds" sh -c 'cat "$1"; exit "$2"' soak "$builds/soak.log" "$soak"
else
    finish # all that follows needs it, or would say the same
fi
if build sanitized "$clang" "$(echo "$clang" | sed 's/clang/clang++/')" --buildtype=debugoptimized \
    -Db_sanitize=address,undefined -Db_lundef=false -Dc_args=-fno-sanitize-recover=all\ -DPGI_FIRST_NEW_TOKENS=500 \
    -Dcpp_args=-fno-sanitize-recover=all; then
    # selftest and timing say nothing of memory; long rows take minutes, and no code knows how long they are; the first
    # build has tried each fault
    export TEST_SHORT=1 TEST_FAULT_STEP=4 TEST_LEAVE_OUT=rows_of_more_than_8192_tokens
    run_suites sanitized --no-suite style --no-suite selftest --no-suite timing --timeout-multiplier 5
    unset TEST_SHORT TEST_FAULT_STEP TEST_LEAVE_OUT
fi
if build pthread "$gcc" "$(echo "$gcc" | sed 's/gcc/g++/')" --buildtype=release -Dthreads=pthread -Dsentencepiece=disabled -Ddefault_library=static -Dexamples=false; then
    run_suites pthread --suite unit --suite golden --suite robustness --no-suite timing
fi
targets=threads
if build thread-sanitized "$gcc" "$(echo "$gcc" | sed 's/gcc/g++/')" --buildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false \
    -Dthreads=pthread -Dsentencepiece=disabled -Ddefault_library=static -Dexamples=false; then
    export TEST_LEAVE_OUT=a_training_stops_soon # how soon says nothing there
    run_suites thread-sanitized --suite threads --timeout-multiplier 5
    unset TEST_LEAVE_OUT
fi
targets=

title "the Python package: numpy alone"
venv=$builds/python
if step "virtual environment" "$python" -m venv --clear --system-site-packages "$venv" &&
    step "numpy, pytest" sh -c "\"$venv/bin/python\" -c 'import numpy, pytest' || \"$venv/bin/python\" -m pip install --quiet numpy pytest" &&
    step "starlette, uvicorn" sh -c "\"$venv/bin/python\" -c 'import starlette, uvicorn' || \"$venv/bin/python\" -m pip install --quiet starlette uvicorn" &&
    step "pip install ./python" sh tests/install_python.sh "$venv/bin/python" "$builds/gcc/lib"; then
    python_suite "$venv/bin/python" "$builds/python.log"
fi

if test "$oracle" = yes; then
    # shellcheck source=tests/run_oracle.sh
    . tests/run_oracle.sh
fi

end
