/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* CRC-32 through zlib. */
#include "base/crc32.h"

#include <zlib.h>

uint32_t pgi_crc32(uint32_t crc, const void *data, size_t size) {
    return size ? (uint32_t)crc32_z(crc, data, size) : crc; /* zlib starts anew for NULL */
}

uint32_t pgi_crc32_combine(uint32_t first, uint32_t second, size_t second_size) {
    return (uint32_t)crc32_combine(first, second, (z_off_t)second_size);
}
