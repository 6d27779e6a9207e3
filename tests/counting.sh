# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# Counting, for the scripts that try a build elsewhere: emulate.sh, arm.sh, windows.sh. They read it.
# shellcheck shell=sh
passed=0
failed=0
count() { # count NAME STATUS
    if test "$2" -eq 0; then
        passed=$((passed + 1))
        echo "ok    $1"
    else
        failed=$((failed + 1))
        echo "FAIL  $1"
    fi
}
# The last line, and the status.
finish() {
    echo "$passed passed, $failed failed"
    test "$failed" -eq 0
    exit
}
