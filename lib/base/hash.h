/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Keyed hashes for tables whose keys come from strangers' files: whoever does not know the key cannot choose keys that
 * collide. A table takes a new key when it is made; nothing that leaves the library depends on it.
 */
#ifndef PGI_BASE_HASH_H
#define PGI_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct pgi_hash_key {
    uint64_t words[2];
} pgi_hash_key;

/* A new key: of the system, or of clock and addresses where it gives none. Never waits. */
pgi_hash_key pgi_hash_key_new(void);

/* SipHash-1-3 (Aumasson and Bernstein, 2012). */
uint64_t pgi_hash_bytes(const pgi_hash_key *key, const void *bytes, size_t size);

/* Of two numbers: Dietzfelbinger's multiply-shift for pairs, mixed once more as ids come in rows. Use its high bits. */
static inline uint64_t pgi_hash_pair(const pgi_hash_key *key, uint32_t a, uint32_t b) {
    uint64_t h = (key->words[0] | 1) * a + (key->words[1] | 1) * b;
    return (h ^ h >> 32) * UINT64_C(0x9E3779B97F4A7C15);
}

#endif
