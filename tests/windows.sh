#!/bin/sh
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# Windows under Wine:  sh tests/windows.sh [--all] [BUILD]
#
# Builds in BUILD (build-windows) with cross/x86_64-w64-mingw32.ini. Then: the DLL exports pg_* alone and needs nothing that
# Windows does not bring; no code of it prints; a program that knows no UTF-8 loads it by name (tests/windows/); files,
# kernels, unit and golden tests; and the tool answers as the README says, with names of any letters.
# --all: then the rest of the kernels' check and the suite robustness.
# What is left out stands in tests/meson.build (programs) and tests/windows_left_out.txt (single tests).
#
# Environment: WINDOWS_SYSROOT  the libraries (BUILD-sysroot, filled by cross/windows-sysroot.sh); MESON; PYTHON; TEST_JOBS.
# Status 77, with a line that says why, where there is no cross compiler, Wine or library. Ends with "N passed, N failed".
set -u
cd "$(dirname "$0")/.." || exit 1
all=no
test "${1-}" != --all || {
    all=yes
    shift
}
build=${1-build-windows}
meson=${MESON:-meson}
python=${PYTHON:-python3}
jobs=${TEST_JOBS:-$(nproc 2>/dev/null || echo 2)}
sysroot=${WINDOWS_SYSROOT:-$build-sysroot}
skip() {
    echo "tests/windows.sh: $1"
    exit 77
}
work=$(mktemp -d)
trap 'WINEPREFIX=$work/prefix "$work/bin/wineserver" -k 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$work/bin"
for program in wine wineserver; do # the package wine64 alone does not put them into the PATH
    for path in "/usr/lib/wine/${program}64" "$(command -v "${program}64")" "$(command -v "$program")"; do
        test ! -x "$path" || {
            printf '#!/bin/sh\nexec "%s" "$@"\n' "$path" >"$work/bin/$program"
            chmod +x "$work/bin/$program"
            break
        }
    done
    test -x "$work/bin/$program" || skip "no $program (Debian: wine64)"
done
PATH=$work/bin:$PATH
for program in x86_64-w64-mingw32-gcc-posix x86_64-w64-mingw32-g++-posix; do
    command -v $program >/dev/null || skip "no $program (Debian: g++-mingw-w64-x86-64-posix)"
done
sh cross/windows-sysroot.sh "$sysroot" >"$work/log" 2>&1 ||
    skip "no libraries for Windows in $sysroot, and they could not be built: $(tail -n 1 "$work/log")"
# A Windows of its own, without the parts that ask to be installed.
export PATH WINEPREFIX="$work/prefix" WINEDEBUG=-all WINEDLLOVERRIDES="winemenubuilder.exe,mscoree,mshtml="

# shellcheck source=tests/counting.sh
. tests/counting.sh

if test ! -f "$build/build.ninja"; then
    "$meson" setup "$build" --werror --buildtype=release --cross-file cross/x86_64-w64-mingw32.ini \
        --cross-file "$sysroot/sysroot.ini" -Dsentencepiece=disabled >"$work/log" 2>&1 || tail -n 20 "$work/log"
fi
targets=quick
test $all = no || targets=
# shellcheck disable=SC2086 # one or none
"$meson" compile -C "$build" -j "$jobs" $targets >"$work/log" 2>&1
status=$?
test $status -eq 0 || grep -v '^\[' "$work/log" | tail -n 40
count "Windows builds without a warning" $status
test $status -eq 0 || finish
wine cmd /c ver >/dev/null 2>&1 || skip "wine does not start"

dll=$(find "$build/lib" -name 'libpaligemma-*.dll')
x86_64-w64-mingw32-objdump -p "$dll" >"$work/dll"
sed -n '/Ordinal\/Name Pointer/,/^$/s/^\t*\[ *[0-9]*\] *\(+base\[ *[0-9]*\] *[0-9a-f]* \)\{0,1\}//p' "$work/dll" >"$work/exports"
others=$(grep -cv '^pg_' "$work/exports")
declared=$(cat include/paligemma/*.h | grep -c '^PG_API ')
test "$others" -eq 0 && test "$(grep -c '^pg_' "$work/exports")" -eq "$declared"
count "the DLL exports the $declared functions of the headers and nothing else" $?
needs=$(sed -n 's/.*DLL Name: *//p' "$work/dll" | tr 'A-Z\r' 'a-z ' | sort | tr '\n' ' ')
test -z "$(echo "$needs" | tr ' ' '\n' | grep -vxE '(kernel32|msvcrt|advapi32)\.dll|')"
count "the DLL needs Windows' own DLLs alone: $needs" $?
"$python" tests/abi/check.py imports "$build/lib/libpgi_core.a" >"$work/log" 2>&1
status=$?
test $status -eq 0 || cat "$work/log"
count "the library calls nothing that prints, ends the process or changes its settings" $status

# The suites of the build. Quick ones come first: what is wrong there explains the rest.
suites() { # suites NAME OPTIONS...
    name=$1
    shift
    TEST_LEAVE_OUT=$(sed 's/#.*//' tests/windows_left_out.txt | tr -s ' \n' '  ') \
        "$meson" test -C "$build" --no-rebuild --print-errorlogs --timeout-multiplier 10 --num-processes "$jobs" "$@" \
        >"$work/log" 2>&1
    status=$?
    test $status -eq 0 || grep -v '^ninja: ' "$work/log"
    passed=$((passed + $(sed -n 's/^Ok: *\([0-9]*\).*/\1/p' "$work/log" | awk '{n += $1} END {print n + 0}')))
    count "$name" $status
}
suites "windows: the DLL by its name, files" --suite windows
suites "the worker" worker
suites "unit and golden tests" --suite unit --suite golden
if test $all = yes; then
    suites "kernels, robustness" --suite kernels --suite robustness
else
    wine "$build/tests/kernels/check.exe" --emulated >"$work/log" 2>&1
    status=$?
    test $status -eq 0 || grep FAILED "$work/log"
    count "kernels/check" $status
fi

WINEPATH=$(printf 'Z:%s' "$(cd "$build/lib" && pwd)" | tr / '\\')
export WINEPATH
tool() { wine "$build/paligemma.exe" "$@"; }
model=examples/demo/model
image=examples/demo/images/shapes.png
for prompt in "caption en" "answer en what color is the star?" "detect red circle ; yellow triangle"; do
    tool run $model $image "$prompt" >"$work/text" &&
        awk -v ask="\"$prompt\"" 'found { print; exit } index($0, ask) && /paligemma run/ { found = 1 }' README.md |
        cmp -s - "$work/text"
    count "the tool: $prompt" $?
done
# Names of any letters, in arguments, files and folders; lines end as elsewhere.
place="$work/ö 日本"
mkdir "$place"
cp $image "$place/bild ä.png"
caption="a red circle, a purple star and a yellow triangle"
tool convert $model "$place/int8 ü" --weights int8 >/dev/null 2>&1 &&
    tool run "$place/int8 ü" "$place/bild ä.png" "caption en" >"$work/text" && echo "$caption" | cmp -s - "$work/text"
count "the tool: converts to a folder of any name, and answers from it" $?
tool detect $model "$place" "red circle" --draw "$place/out" --json >"$work/text" 2>/dev/null
status=$?
test $status -eq 0 && grep -q '"red circle"' "$work/text" && ! grep -q "$(printf '\r')" "$work/text" &&
    test -s "$place/out/bild ä.png"
count "the tool: detects in a folder's images, draws, and writes JSON Lines" $?
printf '{"image": "bild ä.png", "prompt": "caption en", "id": "日本"}\r\n{"image": "none.png", "prompt": "caption en"}\n' >"$place/jobs ö.jsonl"
tool batch $model "$place/jobs ö.jsonl" --out "$place/results.jsonl" >/dev/null 2>&1
test $? -eq 3 && grep -q "日本.*$caption" "$place/results.jsonl" && grep -q '"error".*none.png' "$place/results.jsonl" &&
    tool batch $model "$place/jobs ö.jsonl" --out "$place/results.jsonl" --resume >/dev/null 2>&1
test "$(wc -l <"$place/results.jsonl")" -eq 2
count "the tool: batch, one job of which fails, and --resume" $?
tool run $model - "caption en" <$image >"$work/text" && echo "$caption" | cmp -s - "$work/text"
count "the tool: an image from a pipe" $?
tool run "$place/nowhere" $image "caption en" >"$work/text" 2>"$work/error"
test $? -eq 1 && test ! -s "$work/text" && grep -q 'paligemma: .*日本/nowhere' "$work/error"
count "the tool: a model that is not there is an error line" $?
finish
