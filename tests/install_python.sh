#!/bin/sh
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# The Python package from a copy of the sources, installed into an environment, and a caption with what was installed:
#   install_python.sh PYTHON FOLDER_OF_THE_LIBRARY
# First the package alone (python/pyproject.toml) with the library that PALIGEMMA_LIBRARY names; then the wheel with the
# library and the tool inside (pyproject.toml), in a quick build: how fast the library is does not matter here.
set -eu
python=$1
top=$(cd "$(dirname "$0")/.." && pwd)
soname=$(objdump -p "$2/libpaligemma.so" | awk '$1 == "SONAME" { print $2 }')
library=$(cd "$2" && pwd)/$soname
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

# With the builds' tools at hand nothing is fetched; else pip fetches them.
install() { # install PROGRAM_THAT_FAILS_WITHOUT_THE_TOOLS SOURCE OPTION...
    isolation=
    if "$python" -c "$1" 2>/dev/null; then isolation=--no-build-isolation; fi
    shift
    "$python" -m pip install --quiet --no-deps --force-reinstall $isolation "$@"
}
caption() { # prints the library that was loaded
    cd "$work" && "$python" - "$top/examples/demo" <<'PROGRAM'
import importlib.metadata
import sys
import paligemma
demo = sys.argv[1]
model = paligemma.PaliGemmaForConditionalGeneration.from_pretrained(demo + "/model")
processor = paligemma.AutoProcessor.from_pretrained(demo + "/model")
inputs = processor(demo + "/images/shapes.png", "caption en", return_tensors="np")
text = processor.decode(model.generate(**inputs, max_new_tokens=20)[0], skip_special_tokens=True)
print(paligemma.library_path())
versions = {paligemma.__version__, paligemma.version(), importlib.metadata.version("paligemma")}
if len(versions) > 1:
    sys.exit(f"the package, its metadata and the library have different versions: {versions}")
sys.exit("a red circle" not in text or "site-packages" not in paligemma.__file__)
PROGRAM
}
fail() {
    echo "$1" >&2
    exit 1
}

cp -r "$top/python" "$work/python"
install "import setuptools, wheel" "$work/python"
loaded=$(PALIGEMMA_LIBRARY=$library caption)
test "$loaded" = "$library" || fail "loaded $loaded, expected $library"

if command -v ccache >/dev/null; then export CC="ccache ${CC:-gcc}" CXX="ccache ${CXX:-g++}"; fi
# meson-python runs patchelf and ninja, too, and says which of them it misses.
install "import mesonpy, wheel; assert not mesonpy.get_requires_for_build_wheel()" \
    --config-settings=build-dir="$work/build" --config-settings=setup-args=-Doptimization=0 "$top"
unset PALIGEMMA_LIBRARY
loaded=$(caption)
case $loaded in
*/site-packages/paligemma/lib/"$soname") ;;
*) fail "loaded $loaded, expected the bundled library" ;;
esac
bundled=$loaded
loaded=$(PALIGEMMA_LIBRARY=$library caption)
test "$loaded" = "$library" || fail "with PALIGEMMA_LIBRARY: loaded $loaded, expected $library"

command=$(dirname "$python")/paligemma
said=$(cd "$work" && env -u LD_LIBRARY_PATH "$command" run "$top/examples/demo/model" "$top/examples/demo/images/shapes.png" "caption en")
test "$said" = "a red circle, a purple star and a yellow triangle" || fail "the command paligemma says: $said"
rm "${bundled%/lib/*}/bin/paligemma"
if said=$("$command" --version 2>&1); then fail "the command paligemma ends well without the tool: $said"; fi
case $said in
"paligemma: "*"/bin/paligemma: No such file or directory."*) ;;
*) fail "without the tool the command paligemma says: $said" ;;
esac
