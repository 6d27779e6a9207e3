/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Seeded damage to files: bytes of any kind, and JSON with its structure known. */
#ifndef TESTS_MUTATE_H
#define TESTS_MUTATE_H

#include "support.h"

/* One to three of: flipped bits, extreme bytes and integers, cut off, zeroed, doubled, removed, moved,
 * swapped with what follows, appended. */
void mutate_bytes(rng *r, bytes *b);

/* The value of a random key or element becomes another type, size or sign, or goes, or comes twice. Bytes that are
 * not JSON are damaged as bytes. */
void mutate_json(rng *r, bytes *b);

/* The directory, or the headers of a member, of a zip file; seldom any byte. What comes behind keeps its place mostly.
 */
void mutate_zip(rng *r, bytes *b);

/* Makes the checksums of a PNG's chunks right again, so that what lies under them is read. */
void repair_png(bytes *b);

/* The same for header_crc32 of a converted safetensors file (docs/FORMATS.md), as far as its header can be found. */
void repair_converted(bytes *b);

/* The same for both checksums of a file of pg_calibration_save(). */
void repair_calibration(bytes *b);

/* The same for the checksums of stored members of a zip file, as far as its directory can be read. */
void repair_zip(bytes *b);

#endif
