/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The system's services on Windows. */
#define _CRT_RAND_S /* rand_s() */
#include "base/system.h"

#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

void *pgi_system_alloc(size_t size, size_t alignment) { return _aligned_malloc(size, alignment); }

void pgi_system_free(void *block) { _aligned_free(block); }

int pgi_system_random(void *out, size_t size) {
    for (size_t at = 0; at < size;) {
        unsigned word;
        const size_t n = size - at < sizeof word ? size - at : sizeof word;
        if (rand_s(&word) != 0) return 0;
        memcpy((uint8_t *)out + at, &word, n);
        at += n;
    }
    return 1;
}

size_t pgi_system_page_size(void) {
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return info.dwPageSize;
}

double pgi_system_memory(void) {
    MEMORYSTATUSEX status = {.dwLength = sizeof status};
    return GlobalMemoryStatusEx(&status) ? (double)status.ullTotalPhys : 0;
}
