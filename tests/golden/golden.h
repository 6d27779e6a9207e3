/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the golden tests share. */
#ifndef PGI_GOLDEN_H
#define PGI_GOLDEN_H

#include <stddef.h>
#include <stdint.h>

#define CHECK(expression)                                                        \
    do {                                                                         \
        pg_status check_status_ = (expression);                                  \
        if (check_status_ < 0) fail_msg("%s: %s", #expression, pg_last_error()); \
    } while (0)

#define GOLDEN_HASH_START UINT64_C(0xCBF29CE484222325)

/* FNV-1a, 64 bits, continued from `hash`. */
static inline uint64_t golden_hash(uint64_t hash, const void *data, size_t size) {
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * UINT64_C(0x100000001B3);
    return hash;
}

#endif
