#!/bin/sh
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
# Debian packages of a release's archive:  deb.sh OUT ARCHIVE
#   ARCHIVE  libpaligemma-VERSION.tar.xz, as `meson dist` makes it
#   OUT      gets the source package and the .deb files; lintian then has to find nothing
# packaging/debian becomes debian/ in the archive's folder, with version, soname and date put in: they stand elsewhere.
#
# Environment: DEBFULLNAME, DEBEMAIL  the maintainer;  DEB_BUILD_OPTIONS  nocheck: without the tests of the build.
# What is needed besides dpkg-dev, debhelper and lintian stands in packaging/debian/control; dpkg-buildpackage names it.
set -eu
test $# = 2 || { echo "usage: deb.sh OUT ARCHIVE" >&2 && exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
archive=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
for program in dpkg-buildpackage dh lintian; do
    command -v $program >/dev/null || { echo "deb.sh: $program is not there; apt-get install dpkg-dev debhelper lintian" >&2 && exit 1; }
done
name=$(basename "$archive" .tar.xz)
version=${name#libpaligemma-}
case $name in
libpaligemma-[0-9]*) ;;
*) echo "deb.sh: found the archive $(basename "$archive"), expected libpaligemma-VERSION.tar.xz" >&2 && exit 1 ;;
esac

# Debian's own Meson and Python: a package is not built by what lies elsewhere on PATH.
PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
work=$(mktemp -d "${TMPDIR:-/tmp}/paligemma-deb.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work"
cp "$archive" "libpaligemma_$version.orig.tar.xz"
tar -xf "$archive"
cd "$name"
cp -R packaging/debian debian
api() { awk -v name="PG_API_VERSION_$1" '$1 == "#define" && $2 == name { print $3 }' include/paligemma/version.h; }
soversion=$(api MAJOR)
test "$soversion" != 0 || soversion=0.$(api MINOR)
maintainer="${DEBFULLNAME:-The libpaligemma maintainers} <${DEBEMAIL:-maintainers@libpaligemma.invalid}>"
date=$(date -R -u -r CHANGELOG.md)
find debian -type f -exec sed -i "s/@VERSION@/$version/g; s/@SOVERSION@/$soversion/g; s/@MAINTAINER@/$maintainer/g; s/@DATE@/$date/g" {} +
for file in debian/libpaligemmaSOVERSION.*; do
    mv "$file" "debian/libpaligemma$soversion.${file##*.}"
done

dpkg-buildpackage -us -uc >"$work/build.log" 2>&1 || {
    tail -n 100 "$work/build.log" >&2
    exit 1
}
cd "$work"
find . -maxdepth 1 -type f ! -name build.log -exec cp {} "$out/" \;
# Left out: what is about an upload to Debian alone. (With --fail-on lintian counts what it was told to leave out.)
found=$(lintian --fail-on none --suppress-tags initial-upload-closes-no-bugs,debian-watch-file-is-missing --display-info \
    "libpaligemma_$version-1_"*.changes)
test -z "$found" || {
    echo "$found" >&2
    exit 1
}
