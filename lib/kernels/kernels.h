/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of kernels: plain C first, instruction sets overriding in rising
 * order, one table per model (never a global), so that a test can hold several.
 */
#ifndef PGI_KERNELS_KERNELS_H
#define PGI_KERNELS_KERNELS_H

#include "base/int64.h"
#include "base/run.h"
#include "kernels/low_rank_start.h"
#include "kernels/matrix.h"
#include "kernels/resample.h"
#include "kernels/yuv.h"

/* The PG_CPU_* bits this CPU and its operating system support (CPUID and XCR0; HWCAP). */
uint64_t pgi_cpu_features(void);
/* x86-64: asks the system for AMX's tiles, which Linux gives a process on request alone. 0: it refuses, or knows of
 * none. Signal frames of threads that use tiles are larger by their 8 KiB. */
int pgi_cpu_request_tiles(void);
/* Those of them that make things faster: all, but PG_CPU_AVX512_BF16 only on AMD's CPUs. Zen 4 and 5 multiply bf16 at
 * twice the rate of f32. Intel's servers run vdpbf16ps at half the rate of f32 (measured up to Emerald Rapids; their
 * fast instruction is AMX), so there a mask must ask for it. The choice is by maker and feature bit, not by timing: a
 * model's numbers may not depend on what else a machine was doing. */
uint64_t pgi_cpu_default(void);
/* Whether weights come faster in one stream than in several side by side: on AMD's CPUs, by 15 to 25% on Zen 5.
 * Intel's, measured on Emerald Rapids, read several up to 10% faster. Not measured elsewhere. Results are the same. */
int pgi_cpu_one_stream(void);

typedef struct pgi_kernels pgi_kernels;
struct pgi_row_product; /* quantized.h */
struct pgi_tile_product;

/* Fills the table with the fastest kernels allowed by `cpu_mask` (0: those of
 * pgi_cpu_default()). PG_ERROR_ARGUMENT when the mask leaves nothing. */
pg_status pgi_kernels_init(pgi_kernels *kernels, uint64_t cpu_mask);

/* Sets bf16_linear and bf16_attention, which are 0 before: `arithmetic` is a PG_ARITHMETIC_*, `quantized` whether the
 * weights are int8 or int4. */
void pgi_kernels_arithmetic(pgi_kernels *kernels, int32_t arithmetic, int quantized);

enum {
    PGI_GEMM_KC = 512,               /* the summed dimension is cut at multiples of this */
    PGI_GEMM_LDA = PGI_GEMM_KC + 16, /* from row to row of an A tile: not a power of two, for the cache's sets */
    PGI_GEMM_MR_MAX = 32,
    PGI_GEMM_NR_MAX = 32,
    PGI_GEMM_BF16_KC = 2 * PGI_GEMM_KC, /* of gemm_bf16; also an even number */
    PGI_GEMM_BF16_LDA = PGI_GEMM_BF16_KC + 32,
    PGI_PANEL_COLUMNS = 128,                 /* of gemm_bf16_panels */
    PGI_PANEL_VALUES = 2 * PGI_GEMM_BF16_KC, /* that linear layers give it at once */
    PGI_GEMV_ROWS = 4,      /* up to this many rows of x a product streams the weights instead of packing them */
    PGI_GEMV_UNIT = 32,     /* values that x is rounded up to there */
    PGI_ONE_STREAM_ROWS = 2 /* of x in `gemv_one_stream_*`: loads of more would leave a core too few for weights */
};

/* What `gemm_bf16_panels` multiplies: c [m, n] = a panels + bias + low, or is added to. Of `a` and the panels there are
 * zeros up to the next multiple of 32 values, and rows of zeros up to the next multiple of 16 rows. */
typedef struct pgi_panel_product {
    int m, n;               /* <= gemm_bf16_mr; <= PGI_PANEL_COLUMNS */
    int64_t k;              /* values of the sum */
    const uint16_t *a;      /* [k / PGI_GEMM_BF16_KC rounded up][m, PGI_GEMM_BF16_LDA] */
    int64_t a_block;        /* values from one block to the next */
    const uint16_t *panels; /* of gemm_bf16_nr columns */
    int64_t panel;          /* values from one to the next */
    float *c;
    int64_t c_stride;
    int accumulate;
    const float *bias;
    pgi_low_rank_start low; /* only where gemm_bf16_deep */
} pgi_panel_product;

struct pgi_kernels {
    uint64_t cpu;                   /* PG_CPU_* bits in use */
    int gemm_mr, gemm_nr;           /* the tile of `gemm` */
    int gemm_bf16_mr, gemm_bf16_nr; /* of `gemm_bf16`, within the same limits */
    int gemm_bf16_step;             /* heights of its tiles that are the fastest: multiples of this; or 1 */
    int gemm_bf16_deep; /* whether linear layers take `gemm_bf16_panels`: where _begin and _end do something */
    void (*gemm_bf16_begin)(void); /* before a thread's calls of `gemm_bf16`, and after them: with AMX each takes */
    void (*gemm_bf16_end)(void);   /* longer than a small product */
    /* Whether products round their factors to bf16 (pgi_kernels_arithmetic()): linear layers of more than PGI_GEMV_ROWS
     * rows with weights that are not quantized; attention that is not streamed. */
    int bf16_linear, bf16_attention;
    int low_rank;   /* the largest rank that adapters add to a layer of the model (ops/low_rank.h); 0: there are none */
    int one_stream; /* whether memory gives one stream more than several (pgi_cpu_one_stream()): then linear layers take
                       `gemv_one_stream_*` where x is short, and `stream_*` one panel after the other */
    int quantized_rows;   /* rows of a tile of `product_int8` at the most */
    int quantized_panels; /* that are multiplied by all tiles before the next ones, so that they stay in a cache, */
    int quantized_groups; /* and groups of them */
    int quantized_tiles;  /* whether many rows take `product_tiles`, whose operands quantized.h lays out */
    int stream_rows_int8, stream_rows_int4; /* rows of `stream_int8` and `stream_int4`; at least PGI_GEMV_ROWS */
#define K(type, name, parameters) type(*name) parameters;
#include "kernels/kernels.inc"
#undef K
};

/* The activations of the HF configs that checkpoints use. */
enum {
    /* "gelu_pytorch_tanh", "gelu_new", "gelu_fast": 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
    PGI_ACTIVATION_GELU_TANH = 1,
    PGI_ACTIVATION_GELU_ERF = 2, /* "gelu": 0.5 x (1 + erf(x / sqrt 2)) */
    PGI_ACTIVATION_SILU = 3,     /* "silu", "swish": x / (1 + exp(-x)) */
    PGI_ACTIVATION_RELU = 4      /* "relu" */
};

/* Finds the kernels of a PGI_ACTIVATION_*. PG_ERROR_INTERNAL: there is no such activation. */
pg_status pgi_find_activation(const pgi_kernels *kernels, int32_t activation, void (**apply)(float *x, int64_t n),
                              void (**gate)(float *x, const float *y, int64_t n));

/* Each overrides the groups of kernels.inc that it has; pgi_kernels_ref() fills all. Only for kernels.c. */
void pgi_kernels_ref(pgi_kernels *kernels);
void pgi_kernels_avx2(pgi_kernels *kernels);
void pgi_kernels_avx512(pgi_kernels *kernels);
void pgi_kernels_avx_vnni(pgi_kernels *kernels);    /* only the quantized products and the resize */
void pgi_kernels_avx512_vnni(pgi_kernels *kernels); /* the same */
void pgi_kernels_avx512_bf16(pgi_kernels *kernels); /* only the group bf16 */
void pgi_kernels_amx_int8(pgi_kernels *kernels);    /* the quantized products, rows and tiles */
void pgi_kernels_amx_bf16(pgi_kernels *kernels);    /* only the group bf16 */
void pgi_kernels_neon(pgi_kernels *kernels);
void pgi_kernels_neon_dotprod(pgi_kernels *kernels); /* only the quantized products */
void pgi_kernels_neon_i8mm(pgi_kernels *kernels);    /* the same */
void pgi_kernels_neon_bf16(pgi_kernels *kernels);    /* only the group bf16 */

#endif
