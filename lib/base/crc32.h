/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* CRC-32 of zlib, PNG and Python's zlib.crc32(). */
#ifndef PGI_BASE_CRC32_H
#define PGI_BASE_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Goes on from `crc`; 0 begins anew. */
uint32_t pgi_crc32(uint32_t crc, const void *data, size_t size);

/* The checksum of two parts one after the other, from that of each and the size of the second. */
uint32_t pgi_crc32_combine(uint32_t first, uint32_t second, size_t second_size);

#endif
