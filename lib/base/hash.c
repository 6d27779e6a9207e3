/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* SipHash-1-3 and its key. */
#include "base/hash.h"

#include <string.h>

#include "base/clock.h"
#include "base/system.h"

static uint64_t rotate(uint64_t x, int n) { return x << n | x >> (64 - n); }

static void mix(uint64_t v[4]) {
    v[0] += v[1], v[1] = rotate(v[1], 13) ^ v[0], v[0] = rotate(v[0], 32);
    v[2] += v[3], v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = rotate(v[1], 17) ^ v[2], v[2] = rotate(v[2], 32);
}

/* Little-endian, so that the published test vectors hold on every machine. */
static uint64_t load(const uint8_t *bytes, size_t n) {
    uint64_t word = 0;
    for (size_t i = 0; i < n; i++) word |= (uint64_t)bytes[i] << 8 * i;
    return word;
}

uint64_t pgi_hash_bytes(const pgi_hash_key *key, const void *bytes, size_t size) {
    const uint8_t *p = bytes;
    uint64_t v[4] = {key->words[0] ^ UINT64_C(0x736f6d6570736575), key->words[1] ^ UINT64_C(0x646f72616e646f6d),
                     key->words[0] ^ UINT64_C(0x6c7967656e657261), key->words[1] ^ UINT64_C(0x7465646279746573)};
    size_t left = size;
    for (; left >= 8; left -= 8, p += 8) {
        uint64_t word = load(p, 8);
        v[3] ^= word;
        mix(v);
        v[0] ^= word;
    }
    uint64_t last = (uint64_t)size << 56 | load(p, left);
    v[3] ^= last;
    mix(v);
    v[0] ^= last;
    v[2] ^= 0xFF;
    for (int i = 0; i < 3; i++) mix(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

pgi_hash_key pgi_hash_key_new(void) {
    pgi_hash_key key = {{0, 0}};
    if (pgi_system_random(&key, sizeof key)) return key;
    /* What a file's author cannot know either: how long the machine has been running, and where the stack and the code
     * lie. */
    const double now = pgi_now();
    pgi_hash_key (*code)(void) = pgi_hash_key_new;
    uint64_t seen[3] = {0, (uint64_t)(uintptr_t)&key, 0};
    memcpy(&seen[0], &now, sizeof now);
    memcpy(&seen[2], &code, sizeof code);
    for (int i = 0; i < 2; i++) {
        pgi_hash_key part = {{(uint64_t)i, UINT64_C(0x9E3779B97F4A7C15)}};
        key.words[i] = pgi_hash_bytes(&part, seen, sizeof seen);
    }
    return key;
}
