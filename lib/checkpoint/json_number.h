/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Decimal texts and doubles, correctly rounded both ways, whatever the locale says. */
#ifndef PGI_CHECKPOINT_JSON_NUMBER_H
#define PGI_CHECKPOINT_JSON_NUMBER_H

#include <stddef.h>
#include <stdint.h>

enum { PGI_NUMBER_TEXT = 40 };

/* `text` is a number of JSON's grammar. *out: the double next to it, ties to even. 0: it is too large for one. */
int pgi_number_read(const uint8_t *text, size_t size, double *out);

/* The same for a number without fraction and exponent. 0: it does not fit in 64 bits. */
int pgi_number_read_integer(const uint8_t *text, size_t size, int64_t *out);

/* Writes a finite number with the fewest digits from `least` to `most` (at most 17) that read back as the same value,
 * else with `most`: 0.02, 30.0, 1e-6, 1e22. Returns `out`, which gets a NUL. */
char *pgi_number_write(double value, int least, int most, char out[PGI_NUMBER_TEXT]);

#endif
