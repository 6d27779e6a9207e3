#!/bin/sh
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# pip install ./python into an environment, from a copy of the sources, and a caption with what was installed:
#   install_python.sh PYTHON FOLDER_OF_THE_LIBRARY
# The library is bundled first, then left out and named by PALIGEMMA_LIBRARY.
set -eu
python=$1
top=$(cd "$(dirname "$0")/.." && pwd)
soname=$(objdump -p "$2/libpaligemma.so" | awk '$1 == "SONAME" { print $2 }')
library=$(cd "$2" && pwd)/$soname
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

# With setuptools at hand nothing is fetched; else pip fetches it.
isolation=
if "$python" -c 'import setuptools, wheel' 2>/dev/null; then isolation=--no-build-isolation; fi
install() {
    "$python" -m pip install --quiet --no-deps --force-reinstall $isolation "$work/python"
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

cp -r "$top/python" "$work/python"
mkdir "$work/python/paligemma/lib"
cp -L "$library" "$work/python/paligemma/lib/"
install
unset PALIGEMMA_LIBRARY
loaded=$(caption)
case $loaded in
*/site-packages/paligemma/lib/"$soname") ;;
*) echo "loaded $loaded, expected the bundled library" >&2 && exit 1 ;;
esac

rm -r "$work/python/paligemma/lib" "$work/python/build"
install
PALIGEMMA_LIBRARY=$library
export PALIGEMMA_LIBRARY
loaded=$(caption)
test "$loaded" = "$library" || { echo "loaded $loaded, expected $library" >&2 && exit 1; }
