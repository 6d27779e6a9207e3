/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks every kernel of the table, for every instruction set this CPU has,
 * against a double-precision oracle, and the operations of ops.h on top.
 *
 *   check [--seed N] [--cpu MASK] [--only NAME] [--verbose] [--emulated]
 *   check --selftest     each kernel is broken in several ways; the check must notice every one
 *   check --bench [--cpu MASK] [--threads N] [--mib N] [--only WEIGHTS] [--rows MOST] [--json FILE]
 *
 * Inputs end at a page that cannot be read, outputs have guards around them,
 * weights lie at odd addresses. Bounds come from norms and the rounding unit.
 * --emulated is for qemu-user, whose masked loads of x86 read the masked-out values too: inputs then end 64 bytes
 * before the page. The operations, whose real shapes take it minutes, are left out; with TEST_SHORT in the environment
 * they are checked on the last of the instruction sets alone.
 */
#include "check.h"

#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/float16.h"

static int emulated;
static sigjmp_buf fault;
static void on_fault(int signal_number) { siglongjmp(fault, signal_number); }

uint64_t random_bits(check *c) { /* splitmix64 */
    uint64_t z = c->random += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
double random_unit(check *c) { return (double)(random_bits(c) >> 11) * 0x1p-52 - 1; }
int64_t random_below(check *c, int64_t n) { return (int64_t)(random_bits(c) % (uint64_t)n); }
void random_fill(check *c, float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = (float)random_unit(c);
}

static void random_whole(check *c, uint16_t *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = pgi_bf16_from_f32((float)(random_below(c, 17) - 8));
}
pgi_low_rank_start random_low_rank(check *c, int64_t rows, int64_t n, int nr) {
    const int64_t k = 32 * (1 + random_below(c, 3)), n_a = (rows + 15) / 16 * 16 * k, n_b = (n + nr - 1) / nr * nr * k;
    if (random_below(c, 2)) return (pgi_low_rank_start){0};
    uint16_t *a = guarded(c, (size_t)n_a * 2, 0), *b = guarded(c, (size_t)n_b * 2, 0);
    random_whole(c, a, n_a), random_whole(c, b, n_b);
    return (pgi_low_rank_start){a, b, k};
}
double low_rank_product(const pgi_low_rank_start *low, int64_t row, int64_t column, int64_t l, int nr) {
    const int64_t at = (column / nr * low->k + l / 2 * 2) * nr + 2 * (column % nr) + l % 2;
    return weight_value(low->a, PG_DTYPE_BF16, row * low->k + l) * weight_value(low->b, PG_DTYPE_BF16, at);
}
double low_rank_value(const pgi_low_rank_start *low, int64_t row, int64_t column, int nr) {
    double sum = 0;
    for (int64_t l = 0; l < low->k; l++) sum += low_rank_product(low, row, column, l, nr);
    return sum;
}

pgi_run run_on(const pgi_kernels *kernels, int n_threads) {
    static pgi_thread_pool pools[MAX_THREADS + 1];
    if (pools[n_threads].n_threads == 0) pgi_thread_pool_init(&pools[n_threads], n_threads);
    return (pgi_run){.kernels = kernels, .n_threads = n_threads, .pool = &pools[n_threads]};
}

void *guarded(check *c, size_t bytes, size_t slack) {
#if defined(__x86_64__)
    if (emulated && slack < 64) slack += 64; /* as misaligned as before */
#endif
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + slack + page - 1) / page * page;
    struct block *b = &c->blocks[c->n_blocks];
    if (c->n_blocks == MAX_BLOCKS) exit(2);
    b->map_bytes = body + 2 * page;
    b->map = mmap(NULL, b->map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->map == MAP_FAILED || mprotect(b->map + page, body, PROT_READ | PROT_WRITE)) {
        perror("mmap");
        exit(2);
    }
    c->n_blocks++;
    b->data = b->map + page + body - slack - bytes;
    b->bytes = bytes;
    b->slack = slack;
    memset(b->map + page, 0xA5, body - slack - bytes);
    memset(b->data + bytes, 0xA5, slack);
    return b->data;
}
float *guarded_floats(check *c, int64_t n) { return guarded(c, (size_t)n * sizeof(float), 0); }
float *guarded_output(check *c, int64_t n) {
    float *x = guarded(c, (size_t)n * sizeof(float), 64);
    for (int64_t i = 0; i < n; i++) x[i] = NAN;
    return x;
}

void release_all(check *c) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < c->n_blocks; i++) {
        struct block *b = &c->blocks[i];
        int touched = 0;
        for (unsigned char *p = b->map + page; p < b->data; p++) touched |= *p != 0xA5;
        for (size_t j = 0; j < b->slack; j++) touched |= b->data[b->bytes + j] != 0xA5;
        munmap(b->map, b->map_bytes);
        if (touched) fail(c, "wrote outside a buffer of %zu bytes", b->bytes);
    }
    c->n_blocks = 0;
}

void fail(check *c, const char *format, ...) {
    if (c->failures++ < 5 && !c->quiet) {
        va_list arguments;
        va_start(arguments, format);
        printf("    %s: ", c->name);
        vprintf(format, arguments);
        printf("\n");
        va_end(arguments);
    }
}

void expect_near(check *c, float got, double want, double bound, const char *where, int64_t i, int64_t j) {
    double rounded = (float)want; /* what overflows f32 is infinity */
    if (isnan(rounded) || isinf(rounded)) {
        int same = isnan(rounded) ? isnan(got) : got == (float)rounded;
        /* Next to the overflow threshold either side is right. */
        if (!same && !(isinf(rounded) && isfinite(want) && fabs((double)got) > 0x1p127))
            fail(c, "%s [%lld][%lld]: found %g, expected %g", where, (long long)i, (long long)j, got, rounded);
        return;
    }
    double error = fabs((double)got - want), part = error == 0 ? 0 : error / (bound + 0x1p-149);
    if (part > c->worst) c->worst = part;
    if (!(part <= 1))
        fail(c, "%s [%lld][%lld]: found %.9g, expected %.9g, %.3g times the bound of %.3g", where, (long long)i,
             (long long)j, got, want, part, bound);
}

double sum_bound(double n, double magnitudes, double squares) {
    double sure = (n + 2) * EPSILON * magnitudes, likely = 6 * (sqrt(n) + 2) * EPSILON * sqrt(squares);
    return n > 32 && likely < sure ? likely : sure;
}

void random_weights(check *c, void *w, int32_t dtype, int64_t n) {
    unsigned char *p = w;
    for (int64_t i = 0; i < n; i++) {
        float x = (float)random_unit(c);
        uint32_t bits;
        memcpy(&bits, &x, 4);
        if (dtype == PG_DTYPE_F32) {
            memcpy(p + 4 * i, &bits, 4);
        } else {
            uint16_t half = dtype == PG_DTYPE_BF16
                                ? (uint16_t)(bits >> 16)
                                : (uint16_t)((bits >> 16 & 0x8000) | (9 + bits % 6) << 10 | (bits >> 6 & 0x3FF));
            memcpy(p + 2 * i, &half, 2);
        }
    }
}

double weight_value(const void *w, int32_t dtype, int64_t i) {
    if (dtype == PG_DTYPE_F32) {
        float x;
        memcpy(&x, (const char *)w + 4 * i, 4);
        return x;
    }
    uint16_t half;
    memcpy(&half, (const char *)w + 2 * i, 2);
    int fraction_bits = dtype == PG_DTYPE_BF16 ? 7 : 10, exponent_bits = 15 - fraction_bits;
    int exponent = half >> fraction_bits & ((1 << exponent_bits) - 1), bias = (1 << (exponent_bits - 1)) - 1;
    int fraction = half & ((1 << fraction_bits) - 1);
    double sign = half & 0x8000 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1) return fraction ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexp(fraction, 1 - bias - fraction_bits);
    return sign * ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
}

const char *dtype_name(int32_t dtype) {
    return dtype == PG_DTYPE_F32 ? "f32" : dtype == PG_DTYPE_BF16 ? "bf16" : dtype == PG_DTYPE_F16 ? "f16" : "?";
}

/* Runs one check; a fault counts as a failure. The random numbers depend on the seed and the name alone. */
static void run_check(check *c, const kernel_check *what, uint64_t seed) {
    c->name = what->name;
    c->failures = 0;
    c->worst = 0;
    c->n_blocks = 0;
    c->random = seed;
    for (const char *s = what->name; *s; s++) c->random = c->random * 1099511628211u + (unsigned char)*s;
    int signal_number = sigsetjmp(fault, 1);
    if (signal_number) {
        fail(c, "signal %d: touched memory outside its arguments", signal_number);
        for (int i = 0; i < c->n_blocks; i++) munmap(c->blocks[i].map, c->blocks[i].map_bytes);
        return;
    }
    what->run(c);
    release_all(c);
}

static const struct level {
    uint64_t bits;
    const char *name;
} levels[] = {{PG_CPU_BASELINE, "plain C"},
              {PG_CPU_AVX2, "AVX2"},
              {PG_CPU_AVX512, "AVX-512"},
              {PG_CPU_AVX_VNNI, "AVX-VNNI"},
              {PG_CPU_AVX512_VNNI, "AVX-512 VNNI"},
              {PG_CPU_AVX512_BF16, "AVX-512 BF16"},
              {PG_CPU_AMX_INT8, "AMX-INT8"},
              {PG_CPU_AMX_INT8 | PG_CPU_AMX_BF16, "AMX-INT8 and AMX-BF16"},
              {PG_CPU_NEON, "NEON"},
              {PG_CPU_NEON_DOTPROD, "NEON dot products"},
              {PG_CPU_NEON_I8MM, "NEON i8mm"},
              {PG_CPU_NEON_BF16, "NEON bf16"}};
enum { N_LEVELS = sizeof levels / sizeof *levels };

static int check_masks(void) {
    pgi_kernels table;
    int failures = 0;
    failures += pgi_kernels_init(&table, UINT64_C(1) << 60) != PG_ERROR_ARGUMENT;
    failures += pgi_kernels_init(&table, 0) != PG_OK || table.cpu != pgi_cpu_default();
    failures += (pgi_cpu_default() & ~pgi_cpu_features()) != 0;
    failures += pgi_kernels_init(&table, PG_CPU_BASELINE) != PG_OK || table.cpu != PG_CPU_BASELINE;
    for (int quantized = 0; quantized < 2; quantized++) /* plain C has no bf16 that is fast */
        for (int32_t arithmetic = PG_ARITHMETIC_DEFAULT; arithmetic <= PG_ARITHMETIC_BF16; arithmetic++) {
            pgi_kernels_arithmetic(&table, arithmetic, quantized);
            failures += table.bf16_linear || table.bf16_attention;
        }
    printf("cpu mask: %s\n", failures ? "FAILED" : "ok");
    return failures;
}

/* operations: whether those of ops.h are checked, too. */
static int check_level(const struct level *level, uint64_t seed, const char *only, int operations, int verbose) {
    pgi_kernels table;
    int failed = 0;
    if (pgi_kernels_init(&table, level->bits) != PG_OK) return 1;
    printf("%s: gemm tile %d x %d, of bf16 %d x %d\n", level->name, table.gemm_mr, table.gemm_nr, table.gemm_bf16_mr,
           table.gemm_bf16_nr);
    for (int i = 0; i < n_kernel_checks + (operations ? n_operation_checks : 0); i++) {
        const kernel_check *what = i < n_kernel_checks ? &kernel_checks[i] : &operation_checks[i - n_kernel_checks];
        if (only && strcmp(only, what->name)) continue;
        check c = {.kernels = &table};
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        run_check(&c, what, seed);
        clock_gettime(CLOCK_MONOTONIC, &b);
        if (c.failures || verbose)
            printf("  %-16s %s, largest error %.2f of its bound, %.2f s\n", what->name, c.failures ? "FAILED" : "ok",
                   c.worst, (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec));
        failed += c.failures > 0;
        fflush(stdout);
    }
    return failed;
}

/* The kernels of `names` (ends with NULL) as a table has them, which is no level's. */
static int check_table(const pgi_kernels *table, const char *const *names, const char *where, uint64_t seed,
                       const char *only) {
    int failed = 0;
    for (; *names; names++) {
        for (int i = 0; i < n_kernel_checks; i++) {
            const char *name = kernel_checks[i].name;
            if (strcmp(name, *names) || (only && strcmp(only, name))) continue;
            check c = {.kernels = table};
            run_check(&c, &kernel_checks[i], seed);
            failed += c.failures > 0;
            printf("AMX's %s on %s: %s\n", name, where, c.failures ? "FAILED" : "ok");
        }
    }
    return failed;
}

/* What AMX runs: on tiles in plain C, which any CPU has, and what AVX2 is enough for. */
static int check_amx_elsewhere(uint64_t seed, const char *only) {
    static const char *const on_tiles[] = {"product_tiles", "gemm_bf16", "gemm_bf16_panels", NULL};
    pgi_kernels table;
    if (pgi_kernels_init(&table, PG_CPU_BASELINE) != PG_OK) return 1;
    tiles_in_c(&table);
    int failed = check_table(&table, on_tiles, "tiles in plain C", seed, only);
#ifdef CHECK_TILE_ROWS
    static const char *const on_avx2[] = {"quantize_rows", NULL};
    if (!(pgi_cpu_features() & PG_CPU_AVX2)) return failed;
    tile_rows_avx2(&table);
    failed += check_table(&table, on_avx2, "AVX2", seed, only);
#endif
    return failed;
}

/* Every damage to every kernel must be found. */
static int selftest_level(const struct level *level, uint64_t seed, const char *only) {
    int missed = 0, tried = 0;
    for (int i = 0; i < n_kernel_checks; i++) {
        if (only && strcmp(only, kernel_checks[i].name)) continue;
        for (int damage = 0; damage < N_DAMAGES; damage++) {
            pgi_kernels table;
            if (pgi_kernels_init(&table, level->bits) != PG_OK) return 1;
            break_kernel(&table, i, damage);
            check c = {.kernels = &table, .quiet = 1};
            run_check(&c, &kernel_checks[i], seed);
            tried++;
            if (!c.failures) {
                missed++;
                printf("  %s with %s: NOT NOTICED\n", kernel_checks[i].name, damage_names[damage]);
            }
        }
    }
    printf("%s: %d of %d broken kernels noticed\n", level->name, tried - missed, tried);
    return missed;
}

int main(int argc, char **argv) {
    uint64_t seed = (uint64_t)time(NULL) * 1000003u ^ (uint64_t)getpid(), mask = 0;
    const char *only = NULL, *json = NULL;
    int selftest = 0, want_bench = 0, verbose = 0, n_threads = 2, most_rows = INT_MAX;
    int64_t mib = 768;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--selftest"))
            selftest = 1;
        else if (!strcmp(argv[i], "--bench"))
            want_bench = 1;
        else if (!strcmp(argv[i], "--verbose"))
            verbose = 1;
        else if (!strcmp(argv[i], "--emulated"))
            emulated = 1;
        else if (value && !strcmp(argv[i], "--seed"))
            seed = strtoull(value, NULL, 0), i++;
        else if (value && !strcmp(argv[i], "--cpu"))
            mask = strtoull(value, NULL, 0), i++;
        else if (value && !strcmp(argv[i], "--only"))
            only = value, i++;
        else if (value && !strcmp(argv[i], "--threads"))
            n_threads = atoi(value), i++;
        else if (value && !strcmp(argv[i], "--rows"))
            most_rows = atoi(value), i++;
        else if (value && !strcmp(argv[i], "--json"))
            json = value, i++;
        else if (value && !strcmp(argv[i], "--mib"))
            mib = atoll(value), i++;
        else {
            fprintf(stderr,
                    "usage: check [--seed N] [--cpu MASK] [--only NAME] [--verbose] [--emulated] [--selftest]\n"
                    "       check --bench [--cpu MASK] [--threads N] [--mib N] [--only WEIGHTS] [--rows MOST] [--json "
                    "FILE]\n");
            return 2;
        }
    }
    if (want_bench) {
        pgi_kernels table;
        if (pgi_kernels_init(&table, mask) != PG_OK || n_threads < 1) return 2;
        return bench(&table, n_threads, mib, only, most_rows, json);
    }
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
    printf("seed %llu\n", (unsigned long long)seed);
    int failed = selftest ? 0 : check_masks();
    int runs[N_LEVELS], n_runs = 0;
    for (int i = 0; i < N_LEVELS; i++)
        if (!(levels[i].bits & ~pgi_cpu_features() || (mask && levels[i].bits & ~mask))) runs[n_runs++] = i;
    for (int i = 0; i < n_runs; i++) {
        const int operations = !emulated && (!getenv("TEST_SHORT") || i == n_runs - 1);
        failed += selftest ? selftest_level(&levels[runs[i]], seed, only)
                           : check_level(&levels[runs[i]], seed, only, operations, verbose);
    }
    if (!selftest && !emulated && (!mask || mask & (PG_CPU_AMX_INT8 | PG_CPU_AMX_BF16))) {
        failed += check_amx_elsewhere(seed, only);
        if (!(pgi_cpu_features() & PG_CPU_AMX_INT8)) printf("AMX: this CPU has none, so its own tiles did not run\n");
    }
    printf("%s\n", failed ? "FAILED" : "passed");
    return failed != 0;
}
