/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What a core can do at all: the probes that `paligemma bench` and tests/kernels/bench.c hold their times against.
 * A probe is one thread's work; the caller brings threads and clock.
 */
#ifndef PALIGEMMA_TOOL_ROOF_H
#define PALIGEMMA_TOOL_ROOF_H

#include <stddef.h>
#include <stdint.h>

typedef struct roof_probe {
    const char *name;    /* of the instruction, "vpdpbusd zmm" */
    double (*run)(void); /* under a millisecond of independent multiply-adds; returns how many operations, two each */
} roof_probe;

/* The widest f32 multiply-add, int8 x uint8 and bf16 dot product of this CPU among the sets `cpu` (PG_CPU_*, as
 * pg_model_info.cpu_used). run is NULL when there is none. */
roof_probe roof_f32(uint64_t cpu);
roof_probe roof_int8(uint64_t cpu);
roof_probe roof_bf16(uint64_t cpu);

/* Has memory bring the chunks begin <= i < end, of ROOF_CHUNK bytes each, by reading a word of each line of them, in
 * one of ROOF_WAYS ways, which CPUs and sizes of pages favour differently: the roof is that of the fastest. */
enum { ROOF_CHUNK = 1 << 18, ROOF_WAYS = 5 };
void roof_read(int way, const void *buffer, size_t begin, size_t end);

#endif
