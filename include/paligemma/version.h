/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/**
 * @file version.h
 * The API version of libpaligemma. This header is its only source: Meson reads it for the soname and the names of
 * symbol versions, and pg_version_api() returns it at run time.
 *
 * It is apart from the package version (see pg_version_string()). While MAJOR is 0 a program needs the MINOR that it
 * was built with: the soname is libpaligemma.so.0.MINOR, and the loader finds no other. From 1.0 on the soname is
 * libpaligemma.so.MAJOR.
 */
#ifndef PALIGEMMA_VERSION_H
#define PALIGEMMA_VERSION_H

/** Rises when a program built with an older header may break. */
#define PG_API_VERSION_MAJOR 0
/** Rises when something was added; while MAJOR is 0, also when a program built with an older header may break. */
#define PG_API_VERSION_MINOR 1
/** Rises when only the implementation changed. */
#define PG_API_VERSION_PATCH 0

/** Not 0 when a program built with this header may use a library of that API version:
 * `if (!PG_API_COMPATIBLE(pg_version_api())) ...`. For programs that load the library themselves (dlopen, bindings);
 * the loader does the same by the soname. MAJOR is the same, and MINOR too while MAJOR is 0; from 1.0 on the library's
 * MINOR is this one or later. */
#define PG_API_COMPATIBLE(version)                                                     \
    ((int)((version) >> 16) == PG_API_VERSION_MAJOR &&                                 \
     (PG_API_VERSION_MAJOR == 0 ? (int)((version) >> 8 & 0xff) == PG_API_VERSION_MINOR \
                                : (int)((version) >> 8 & 0xff) >= PG_API_VERSION_MINOR))

#endif /* PALIGEMMA_VERSION_H */
