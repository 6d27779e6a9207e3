/*
 * The API version of libpaligemma. This header is its only source: Meson
 * reads it for the soname, and pg_version_api() returns it at run time.
 *
 * It is apart from the package version (see pg_version_string()):
 *   MAJOR  rises when a program built against an older header may break;
 *          it is the number in the soname
 *   MINOR  rises when something was added (old programs keep running)
 *   PATCH  rises when only the implementation changed
 */
#ifndef PALIGEMMA_VERSION_H
#define PALIGEMMA_VERSION_H

#define PG_API_VERSION_MAJOR 0
#define PG_API_VERSION_MINOR 4
#define PG_API_VERSION_PATCH 0

#endif /* PALIGEMMA_VERSION_H */
