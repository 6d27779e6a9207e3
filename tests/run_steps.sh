# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# What the parts of run.sh are made of: counting, steps, builds, suites. It is read by run.sh, whose variables it uses
# (top, builds, jobs, meson).
# shellcheck shell=sh disable=SC2154
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
# step NAME COMMAND...: counts one; its output is shown when it fails. Status 77 is a step that cannot be done here.
step() {
    step_name=$1
    shift
    "$@" >"$builds/step.log" 2>&1
    case $? in
    0)
        passed=$((passed + 1))
        echo "ok    $step_name"
        ;;
    77)
        echo "skip  $step_name: $(tail -n 1 "$builds/step.log")"
        ;;
    *)
        failed=$((failed + 1))
        tail -n 60 "$builds/step.log"
        echo "FAIL  $step_name: $*"
        return 1
        ;;
    esac
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

# build NAME COMPILER C++COMPILER OPTION...: configures anew what is there, and builds: all, or $targets.
build() {
    name=$1
    cc=$2
    cxx=$3
    shift 3
    title "$name: build"
    test ! -f "$builds/$name/build.ninja" || set -- "$@" --wipe
    # shellcheck disable=SC2086 # several targets
    step "$name configures" env CC="$cc" CXX="$cxx" "$meson" setup "$builds/$name" "$top" --werror -Dcmocka=enabled "$@" &&
        step "$name builds without a warning" "$meson" compile -C "$builds/$name" -j "$jobs" ${targets-}
}

# run_suites NAME [meson test option...]: adds what meson counts.
run_suites() {
    name=$1
    shift
    title "$name: tests"
    log=$builds/$name.log
    # print_stacktrace and halting come on top of what Meson sets; a leak in code that is not ours is named in the file;
    # nothing is suppressed for threads
    ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:check_initialization_order=1:halt_on_error=1:abort_on_error=1 \
        UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:abort_on_error=1 \
        LSAN_OPTIONS=suppressions="$top/tests/lsan.supp":print_suppressions=0 \
        TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 \
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

# python_suite PYTHON LOG [FILE...]: the tests of python/, or FILEs of them, with the library of the release build; what
# PYTHON lacks is skipped there.
python_suite() {
    suite_python=$1
    suite_log=$2
    shift 2
    test $# -gt 0 || set -- python/tests
    PALIGEMMA_LIBRARY=$builds/gcc/lib PYTHONPATH=$builds/pytest PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 \
        "$suite_python" -m pytest -q -rs -p no:cacheprovider "$@" >"$suite_log" 2>&1
    tail -n 60 "$suite_log"
    add_counts "$suite_log" "python/tests"
}
