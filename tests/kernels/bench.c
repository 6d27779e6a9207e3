/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast the operations are on the model's shapes, as a share of the roofs (examples/tool/roof.c)
 * measured in the same run: fused multiply-adds of the vectors in use, and
 * reading memory. Weights rotate over a buffer larger than the caches. Two times are
 * given: the fastest tenth ends at the first, which on a shared machine is the
 * figure of the code; the median is that of the moment.
 */
#include "check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "generate/sampler.h"
#include "kernels/quantized.h"
#include "roof.h"

enum { MAX_TIMES = 4000 };

/* One thread is timed by its own CPU clock, which stands still while other processes run. */
static clockid_t clock_id = CLOCK_MONOTONIC;

static double seconds(void) {
    struct timespec t;
    clock_gettime(clock_id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct {
    double at[MAX_TIMES];
    int n;
} times;

/* Repeats `prepare`, not timed, and the statement until 1 s and 3 repetitions have gone by. */
#define MEASURE(prepare, ...)                                                   \
    do {                                                                        \
        double start = seconds();                                               \
        times.n = 0;                                                            \
        while (times.n < MAX_TIMES && (times.n < 3 || seconds() - start < 1)) { \
            prepare;                                                            \
            double t = seconds();                                               \
            __VA_ARGS__;                                                        \
            times.at[times.n++] = seconds() - t;                                \
        }                                                                       \
        qsort(times.at, (size_t)times.n, sizeof(double), by_value);             \
    } while (0)

/* The fastest tenth ends here. Not the very fastest: a thread's CPU clock in a guest can miss time now and then. */
static double fast_time(void) { return times.at[times.n / 10]; }

/* ---- the roofs ---- */

typedef struct roof_task {
    double (*probe)(void);
    int way;
    const char *buffer;
} roof_task;

enum { PROBES = 6 }; /* a few milliseconds: well above the cost of waking threads */

static void spin(void *context, int64_t begin, int64_t end, int thread) {
    const roof_task *task = context;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        for (int j = 0; j < PROBES; j++) task->probe();
}

static void read_chunks(void *context, int64_t begin, int64_t end, int thread) {
    const roof_task *task = context;
    (void)thread;
    roof_read(task->way, task->buffer, (size_t)begin, (size_t)end);
}

static double peak(const pgi_run *run, roof_probe probe) {
    if (!probe.run) return 0;
    roof_task task = {.probe = probe.run};
    double work = probe.run() * PROBES * run->n_threads;
    MEASURE((void)0, pgi_parallel_for(run, run->n_threads, 1, spin, &task));
    return work / fast_time();
}

/* In slices of 64 MiB, which are shorter than what disturbs them. Of each way alone, as an operation is timed: the
 * fastest tenth of all ways' times together can be half of the best way's, or more. */
static double bandwidth(const pgi_run *run, const char *buffer, size_t bytes) {
    size_t at = 0, slice = 64u << 20;
    double best = 0;
    for (int way = 0; way < ROOF_WAYS; way++) {
        roof_task task = {.way = way};
        MEASURE(
            {
                at = at + 2 * slice <= bytes ? at + slice : 0;
                task.buffer = buffer + at;
            },
            pgi_parallel_for(run, (int64_t)(slice / ROOF_CHUNK), 1, read_chunks, &task));
        if ((double)slice / fast_time() > best) best = (double)slice / fast_time();
    }
    return best;
}

/* ---- the operations ---- */

static FILE *json; /* NULL: the table alone */
static int n_rows;
static char name[128]; /* of the row that is measured */

static void label(const char *format, ...) __attribute__((format(__printf__, 1, 2)));
static void label(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    size_t n = strlen(name);
    fputs(name, stdout);
    while (n > 0 && name[n - 1] == ' ') name[--n] = 0;
}

/* {"cpu": bits, "threads": n, "roofs": {"f32", "int8": operations a second, "read": bytes a second},
 *  "rows": [{"name", "fast_s", "median_s"[, "flop_s", "part_of_peak"][, "byte_s", "part_of_read"]}]} */
static void json_begin(const pgi_run *run, double f32, double int8, double bf16, double read) {
    n_rows = 0;
    if (json)
        fprintf(json,
                "{\"cpu\": %llu, \"threads\": %d, \"roofs\": {\"f32\": %.6g, \"int8\": %.6g, \"bf16\": %.6g, \"read\": "
                "%.6g}, \"rows\": [",
                (unsigned long long)run->kernels->cpu, run->n_threads, f32, int8, bf16, read);
}
static void json_row(double flop, double flop_roof, double bytes, double byte_roof) {
    const double best = fast_time();
    if (!json) return;
    fprintf(json, "%s\n{\"name\": \"%s\", \"fast_s\": %.6g, \"median_s\": %.6g", n_rows++ ? "," : "", name, best,
            times.at[times.n / 2]);
    if (flop > 0) fprintf(json, ", \"flop_s\": %.6g, \"part_of_peak\": %.4f", flop / best, flop / best / flop_roof);
    if (bytes > 0) fprintf(json, ", \"byte_s\": %.6g, \"part_of_read\": %.4f", bytes / best, bytes / best / byte_roof);
    fputc('}', json);
}

static void report(double flop, double flop_roof, double bytes, double byte_roof, size_t scratch) {
    double best = fast_time(), median = times.at[times.n / 2];
    json_row(flop, flop_roof, bytes, byte_roof);
    printf("fast %9.3f ms, median %9.3f ms", best * 1e3, median * 1e3);
    if (flop > 0)
        printf(" | %6.1f GFLOP/s, %3.0f%% (%3.0f%%) of peak", flop / best / 1e9, 100 * flop / best / flop_roof,
               100 * flop / median / flop_roof);
    if (bytes > 0)
        printf(" | %5.1f GB/s, %3.0f%% (%3.0f%%) of read", bytes / best / 1e9, 100 * bytes / best / byte_roof,
               100 * bytes / median / byte_roof);
    if (scratch) printf(" | scratch %.2f MiB", (double)scratch / (1 << 20));
    printf("\n");
    fflush(stdout);
}

static void nothing(void *context, int64_t begin, int64_t end, int thread) {
    (void)context, (void)begin, (void)end, (void)thread;
}

/* What it costs to hand work to a pool whose threads are awake, and asleep. */
static void meetings(const pgi_run *run) {
    const struct timespec pause = {0, 2000000};
    MEASURE((void)0, for (int i = 0; i < 100; i++) pgi_parallel_for(run, 64, 1, nothing, NULL));
    label("100 empty jobs of 64 chunks ");
    report(0, 0, 0, 0, 0);
    MEASURE(nanosleep(&pause, NULL), pgi_parallel_for(run, 64, 1, nothing, NULL));
    label("empty job after a pause of 2 ms ");
    report(0, 0, 0, 0, 0);
}

static int measure_all(const pgi_kernels *kernels, int n_threads, int64_t buffer_mib, const char *only, int most_rows) {
    static const int shapes[][3] = {{256, 588, 1152},  {256, 1152, 1152}, {256, 1152, 4304},  {256, 4304, 1152},
                                    {272, 2048, 2048}, {272, 2048, 256},  {272, 2048, 16384}, {272, 16384, 2048},
                                    {1, 2048, 256},    {1, 2048, 2048},   {1, 2048, 16384},   {1, 16384, 2048},
                                    {1, 2048, 257216}, {2, 2048, 16384},  {2, 16384, 2048},   {3, 2048, 16384},
                                    {3, 16384, 2048},  {4, 2048, 16384},  {4, 16384, 2048},   {6, 2048, 16384},
                                    {8, 2048, 16384},  {12, 2048, 16384}, {16, 2048, 16384},  {16, 16384, 2048}};
    /* The last three: in bf16, where the CPU has that. */
    static const int32_t dtypes[] = {PG_DTYPE_BF16,         PG_DTYPE_F16,  PG_DTYPE_F32, PGI_DTYPE_INT8_BLOCKS,
                                     PGI_DTYPE_INT4_BLOCKS, PG_DTYPE_BF16, PG_DTYPE_F16, PG_DTYPE_F32};
    static const char *const names[] = {"bf16", "f16", "f32", "int8", "int4", "bf16:bf16", "f16:bf16", "f32:bf16"};
    pgi_kernels rounding = *kernels;
    pgi_kernels_arithmetic(&rounding, PG_ARITHMETIC_BF16, 0);
    clock_id = n_threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
    size_t bytes = (size_t)buffer_mib << 20, n_x = (size_t)4096 * 16 * 72 * 3,
           n_y = (size_t)4 * 257216 + 272 * 16384 + 4096 * 16 * 72;
    char *buffer = aligned_alloc(64, bytes);
    float *x = aligned_alloc(64, n_x * sizeof(float)), *y = aligned_alloc(64, n_y * sizeof(float));
    void *scratch = aligned_alloc(64, (pgi_linear_scratch(&rounding, n_threads) + 63) / 64 * 64);
    if (bytes < (64u << 20) || !buffer || !x || !y || !scratch) return 2;
    check c = {.random = 1};
    random_weights(&c, buffer, PG_DTYPE_F16, 1 << 20);
    for (size_t at = 2 << 20; at + (2 << 20) <= bytes; at += 2 << 20) memcpy(buffer + at, buffer, 2 << 20);
    random_fill(&c, x, (int64_t)n_x);
    random_fill(&c, y, (int64_t)n_y);
    pgi_thread_pool pool;
    pgi_run run = pgi_run_init(&pool, kernels, &(pg_run_options){.n_threads = n_threads});
    roof_probe f32 = roof_f32(kernels->cpu), int8 = roof_int8(kernels->cpu), bf16_probe = roof_bf16(kernels->cpu);
    double flop_roof = peak(&run, f32), int8_roof = peak(&run, int8), bf16_roof = peak(&run, bf16_probe),
           byte_roof = bandwidth(&run, buffer, bytes);
    printf(
        "cpu 0x%llx, %d threads: f32 %.0f GFLOP/s (%s), int8 %.0f GOP/s (%s), bf16 %.0f GFLOP/s (%s), read %.1f "
        "GB/s; shares of the fast time (of the median)\n",
        (unsigned long long)kernels->cpu, n_threads, flop_roof / 1e9, f32.name, int8_roof / 1e9, int8.name,
        bf16_roof / 1e9, bf16_probe.name, byte_roof / 1e9);
    json_begin(&run, flop_roof, int8_roof, bf16_roof, byte_roof);
    if (n_threads > 1 && !only) meetings(&run);

    const int attention_alone = only && !strcmp(only, "attention");
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes && !attention_alone; s++) {
        for (int d = 0; d < (rounding.bf16_linear ? 8 : 5); d++) {
            if ((only && strcmp(only, names[d])) || shapes[s][0] > most_rows) continue;
            const int quantized = pgi_dtype_is_blocks(dtypes[d]), rounds = d >= 5;
            if (rounds && shapes[s][0] <= PGI_GEMV_ROWS) continue; /* the same as without */
            run.kernels = rounds ? &rounding : kernels;
            int64_t m = shapes[s][0], in = shapes[s][1], out = shapes[s][2], copy = 0,
                    row = quantized ? pgi_quantized_bytes(dtypes[d], PGI_PANEL_ROWS, in) / PGI_PANEL_ROWS
                                    : in * (int64_t)pgi_dtype_size(dtypes[d]);
            if (in * out * 4 > (int64_t)bytes) out = (int64_t)bytes / 4 / in / PGI_PANEL_ROWS * PGI_PANEL_ROWS;
            int64_t size = (out + PGI_PANEL_ROWS - 1) / PGI_PANEL_ROWS * PGI_PANEL_ROWS * row;
            int64_t n_copies = (int64_t)bytes / size;
            size_t scratch_bytes = pgi_linear_scratch(run.kernels, n_threads);
            MEASURE((void)0, {
                pgi_linear linear = {{buffer + copy * size, dtypes[d], out, in, NULL}, NULL, NULL};
                pgi_linear_forward(&run, x, in, m, &linear, y, out, scratch);
                copy = (copy + 1) % n_copies;
            });
            label("linear %3d x %5d x %6d %-9s ", (int)m, (int)in, (int)out, names[d]);
            report(m > 1 ? 2.0 * (double)(m * in * out) : 0,
                   rounds                       ? bf16_roof
                   : quantized && int8_roof > 0 ? int8_roof
                                                : flop_roof,
                   m <= 16 ? (double)size : 0, byte_roof, scratch_bytes);
        }
    }
    if (only && !attention_alone) {
        pgi_run_free(&run);
        return 0;
    }
    static const int attentions[][6] = {
        {256, 256, 16, 16, 72},  {1024, 1024, 16, 16, 72},    {4096, 4096, 16, 16, 72}, {272, 272, 8, 1, 256},
        {1040, 1040, 8, 1, 256}, {4112, 4112, 8, 1, 256},     {272, 272, 8, 4, 256},    {272, 272, 8, 4, 256, 50},
        {1040, 1040, 8, 4, 256}, {1040, 1040, 8, 4, 256, 50}, {1, 300, 8, 1, 256},      {1, 4200, 8, 1, 256}};
    for (size_t s = 0; s < 2 * (sizeof attentions / sizeof *attentions); s++) {
        const int *a = attentions[s / 2], bf16 = s % 2;
        if (bf16 &&
            (!(kernels->cpu & (PG_CPU_AVX512_BF16 | PG_CPU_AMX_BF16 | PG_CPU_NEON_BF16)) || a[0] <= PGI_GEMV_ROWS))
            continue;
        pgi_kernels table = *kernels;
        table.bf16_attention = bf16;
        run.kernels = &table;
        pgi_attention shape = {.n_queries = a[0],
                               .n_keys = a[1],
                               .n_heads = a[2],
                               .n_kv_heads = a[3],
                               .head_dim = a[4],
                               .scale = 0.1f,
                               .soft_cap = (float)a[5]};
        size_t scratch_bytes = pgi_attention_scratch(&table, &shape, n_threads);
        void *workspace = aligned_alloc(64, (scratch_bytes + 63) / 64 * 64);
        if (!workspace) return 2;
        int64_t q_stride = (int64_t)a[2] * a[4], k_stride = (int64_t)a[3] * a[4];
        const float *k = x + (int64_t)a[0] * q_stride, *v = k + a[1] * k_stride;
        const pgi_attention_rows rows = {x, k, v, y, q_stride, k_stride, k_stride, q_stride, 0, 0};
        MEASURE((void)0, pgi_attention_forward(&run, &shape, &rows, workspace));
        label("attention %4d x %4d, %2d/%2d heads of %3d%s %-4s ", a[0], a[1], a[2], a[3], a[4], a[5] ? " capped" : "",
              bf16 ? "bf16" : "f32");
        report(4.0 * a[0] * a[1] * a[2] * a[4], bf16 ? bf16_roof : flop_roof, 0, 0, scratch_bytes);
        free(workspace);
    }
    run.kernels = kernels;
    if (only) {
        pgi_run_free(&run);
        return 0;
    }
    static const char *const activations[] = {"gelu_tanh", "gelu_erf", "silu", "relu"};
    for (int i = 0; i < 4; i++) {
        MEASURE(memcpy(y, x, (size_t)272 * 16384 * sizeof(float)), pgi_gate(&run, i + 1, y, x, 272 * 16384));
        label("gate %-9s 272 x 16384 ", activations[i]);
        report(0, 0, 12.0 * 272 * 16384, byte_roof, 0);
    }
    MEASURE((void)0, pgi_rms_norm(&run, x, 272, 2048, y, 1e-6f, y + 2048));
    label("rms_norm 272 x 2048 ");
    report(0, 0, 0, 0, 0);
    MEASURE((void)0, pgi_layer_norm(&run, x, 256, 1152, y, y, 1e-6f, y + 2048));
    label("layer_norm 256 x 1152 ");
    report(0, 0, 0, 0, 0);
    volatile int64_t sink;
    MEASURE((void)0, sink = pgi_sample(y, 257216));
    (void)sink;
    label("sample 257216 ");
    report(0, 0, 0, 0, 0);
    free(buffer);
    free(x);
    free(y);
    free(scratch);
    pgi_run_free(&run);
    return 0;
}

int bench(const pgi_kernels *kernels, int n_threads, int64_t buffer_mib, const char *only, int most_rows,
          const char *json_path) {
    json = json_path ? fopen(json_path, "w") : NULL;
    if (json_path && !json) {
        perror(json_path);
        return 2;
    }
    int status = measure_all(kernels, n_threads, buffer_mib, only, most_rows);
    if (!json) return status;
    fputs("]}\n", json);
    return fclose(json) ? 2 : status;
}
