#!/bin/sh
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# All that a release consists of, made from the commit that is checked out, and each part used from an empty environment:
#   release.sh OUT [archive] [wheel] [debs]        all three unless told; wheel and debs are made from the archive's commit
#   archive  libpaligemma-VERSION.tar.xz and .gz by `meson dist`, and paligemma.wrap. Unpacked outside of any repository it
#            builds, passes the golden tests and captions the demo image; by the wrap file it builds as a subproject
#   wheel    the sdist, the wheel built from it (wheel.py); installed into an empty environment of each Python here, and
#            into a Debian that has nothing but python3, it captions the demo image
#   debs     the Debian packages (deb.sh); installed into that Debian by apt, and their autopkgtests run there
# At the end OUT/SHA256SUMS names what is to be published. The bare Debian is made by debootstrap, as root; where that is
# not possible the script says what it left out. Nothing is uploaded.
#
# Environment: MESON, PYTHON  the programs;  DEB_BUILD_OPTIONS  (nocheck);  DEBFULLNAME, DEBEMAIL  (deb.sh)
set -eu
test $# -ge 1 || { sed -n '3,15s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
parts=${*:-archive wheel debs}
for part in $parts; do
    case $part in
    archive | wheel | debs) ;;
    *) echo "release.sh: there is no part $part; there are archive, wheel and debs" >&2 && exit 2 ;;
    esac
done
meson=${MESON:-meson}
python=${PYTHON:-python3}
version=$(cat "$top/python/paligemma/VERSION")
archive=$out/libpaligemma-$version.tar.xz
demo=$top/examples/demo
expected="a red circle, a purple star and a yellow triangle"
unset PALIGEMMA_LIBRARY LD_LIBRARY_PATH PYTHONPATH PKG_CONFIG_PATH
work=$(mktemp -d "${TMPDIR:-/tmp}/paligemma-release.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
left_out=

run() { # run WHAT COMMAND...: prints what the command said when it fails, and ends
    what=$1
    shift
    "$@" >"$work/log" 2>&1 || {
        cat "$work/log"
        echo "FAILED: $what"
        exit 1
    }
    echo "ok: $what"
}
wants() { case " $parts " in *" $1 "*) ;; *) return 1 ;; esac }
says() { # says WHAT COMMAND...: the command prints the caption of the demo image
    what=$1
    shift
    said=$(cd "$work" && "$@" 2>&1) || true
    test "$said" = "$expected" || { echo "FAILED: $what says: $said" && exit 1; }
    echo "ok: $what"
}
caption="import sys, paligemma
model = paligemma.PaliGemmaForConditionalGeneration.from_pretrained(sys.argv[1] + '/model')
print(model.ask(sys.argv[1] + '/images/shapes.png', 'caption en'))"

if wants archive || ! test -e "$archive"; then
    if test -n "$(git -C "$top" status --porcelain)"; then
        echo "release.sh: there are changes that are not committed; a release is a commit" >&2
        exit 1
    fi
    run "configured" "$meson" setup -Dtests=false "$work/build" "$top"
    run "meson dist" "$meson" dist -C "$work/build" --no-tests --formats xztar,gztar
    cp "$work/build/meson-dist/libpaligemma-$version.tar.xz" "$work/build/meson-dist/libpaligemma-$version.tar.gz" "$out/"
    sed "s/@VERSION@/$version/; s/@SHA256@/$(sha256sum "$archive" | cut -d ' ' -f 1)/" "$top/packaging/paligemma.wrap.in" >"$out/paligemma.wrap"
fi
if wants archive; then
    mkdir "$work/unpacked"
    tar -xf "$archive" -C "$work/unpacked"
    source=$work/unpacked/libpaligemma-$version
    run "the archive is configured" "$meson" setup "$work/from-archive" "$source"
    run "the archive builds" "$meson" compile -C "$work/from-archive"
    run "the archive's golden tests" "$meson" test -C "$work/from-archive" --no-rebuild --suite golden
    says "the archive's tool" "$work/from-archive/paligemma" run "$source/examples/demo/model" "$source/examples/demo/images/shapes.png" "caption en"
    run "the archive as a subproject" sh "$source/pkgconfig/check_subproject.sh" "$meson" "$archive" "$version" "$out/paligemma.wrap"
fi

# A Debian that has Python and no more: neither libpng nor a compiler. in_debian COMMAND...
debian=
make_debian() {
    test -z "$debian" || return 0
    if test "$(id -u)" != 0 || ! command -v debootstrap >/dev/null; then
        left_out="$left_out
left out, for want of root or debootstrap: $1 in a bare Debian"
        return 1
    fi
    debian=$work/debian
    # shellcheck source=/dev/null
    run "a bare Debian" debootstrap --variant=minbase --include=python3,python3-venv "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$debian"
    mkdir "$debian/demo"
    cp -R "$demo/model" "$demo/images" "$debian/demo/"
}
in_debian() { # with a /proc, by which a program finds the libraries beside it; the mount ends with the command
    # shellcheck disable=SC2016 # for the inner shell
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        unshare --mount sh -c 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"' "$debian" "$@"
}

if wants wheel; then
    run "an environment for the build" "$python" -m venv "$work/build-tools"
    run "build" "$work/build-tools/bin/pip" install --quiet build
    run "the sdist" "$work/build-tools/bin/python" -m build --sdist --outdir "$out" "$top"
    run "the wheel of the sdist" "$python" "$top/packaging/wheel.py" "$work/wheel" "$out/paligemma-$version.tar.gz"
    wheel=$out/$(basename "$work/wheel"/*.whl)
    cp "$work/wheel"/*.whl "$wheel"
    for minor in 9 10 11 12 13 14; do
        found=python3.$minor
        "$found" -c 'import ensurepip, venv' 2>/dev/null || continue
        rm -rf "$work/venv"
        run "$found: an empty environment" "$found" -m venv "$work/venv"
        run "$found: pip install" "$work/venv/bin/pip" install --quiet "$wheel"
        says "$found: the package" "$work/venv/bin/python" -c "$caption" "$demo"
        says "$found: the command" "$work/venv/bin/paligemma" run "$demo/model" "$demo/images/shapes.png" "caption en"
    done
    if make_debian wheel; then
        mkdir "$debian/wheels"
        cp "$wheel" "$debian/wheels/"
        in_debian python3 -m venv /venv
        run "numpy for it" "$work/build-tools/bin/pip" download --quiet --only-binary=:all: --dest "$debian/wheels" \
            --python-version "$(in_debian python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')" numpy
        run "bare Debian: pip install" in_debian /venv/bin/pip install --no-index --find-links /wheels paligemma
        says "bare Debian: the package" in_debian /venv/bin/python -c "$caption" /demo
        says "bare Debian: the command" in_debian /venv/bin/paligemma run /demo/model /demo/images/shapes.png "caption en"
        rm -rf "$debian/venv" "$debian/wheels"
    fi
fi

if wants debs; then
    run "Debian packages, and lintian" sh "$top/packaging/deb.sh" "$work/debs" "$archive"
    cp "$work/debs"/* "$out/"
    if make_debian debs; then
        mkdir "$debian/debs" "$debian/src"
        cp "$work/debs"/*.deb "$debian/debs/"
        tar -xf "$archive" -C "$debian/src" --strip-components=1
        cp -R /etc/apt/. "$debian/etc/apt/"
        cp /etc/resolv.conf "$debian/etc/resolv.conf"
        run "bare Debian: apt-get update" in_debian apt-get update
        run "bare Debian: the tool and the Python package" in_debian sh -c 'apt-get install -y --no-install-recommends /debs/libpaligemma0*_*.deb /debs/paligemma-tools_*.deb /debs/python3-*.deb'
        run "bare Debian: autopkgtest caption" in_debian sh -c 'cd /src && sh packaging/debian/tests/caption'
        run "bare Debian: the rest, and compilers" in_debian sh -c 'apt-get install -y --no-install-recommends build-essential cmake meson pkgconf /debs/libpaligemma-dev_*.deb'
        run "bare Debian: autopkgtest consumer" in_debian sh -c 'cd /src && sh packaging/debian/tests/consumer'
        run "bare Debian: removed again" in_debian sh -c 'apt-get purge -y libpaligemma-dev python3-paligemma paligemma-tools "libpaligemma0*" && ! ls /usr/lib/*/libpaligemma* /usr/bin/paligemma 2>/dev/null'
    fi
fi

(cd "$out" && sha256sum $(find . -maxdepth 1 -type f ! -name SHA256SUMS | sed 's|^\./||' | sort) >SHA256SUMS)
cat "$out/SHA256SUMS"
test -z "$left_out" || echo "$left_out"
