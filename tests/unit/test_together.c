/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Rows that pg_forward, and the prefill of pg_generate, run as one pass give what they give row by row, and alone, to
 * the last bit. */
#include "run_tests.h"

#include "forward_fixture.h"

enum { N = 8 };

/* Text of 1 to 6 tokens, around the 4 up to which stored weights take another path, and longer rows and images. */
static const row_spec rows[N] = {{0, 5, 0, 1}, {0, 4, 2, 2}, {0, 3, 1, 3}, {1, 4, 5, 4},
                                 {0, 1, 0, 5}, {0, 9, 4, 6}, {1, 2, 0, 7}, {0, 6, 0, 8}};

static const struct {
    int32_t weights, arithmetic;
    uint64_t cpu_mask;
} kinds[] = {{PG_WEIGHTS_STORED, PG_ARITHMETIC_F32, 0},
             {PG_WEIGHTS_STORED, PG_ARITHMETIC_BF16, 0},
             {PG_WEIGHTS_STORED, PG_ARITHMETIC_DEFAULT, PG_CPU_BASELINE},
             {PG_WEIGHTS_INT8, PG_ARITHMETIC_DEFAULT, 0},
             {PG_WEIGHTS_INT4, PG_ARITHMETIC_DEFAULT, 0},
             {PG_WEIGHTS_INT4, PG_ARITHMETIC_DEFAULT, PG_CPU_BASELINE}};

typedef struct told {
    int n;
    int64_t done, total;
} told;

static int32_t tell(void *user, int32_t phase, int64_t done, int64_t total) {
    told *t = user;
    if (phase != PG_PHASE_PREFILL) return 0;
    assert_true(done >= t->done && done <= total);
    *t = (told){t->n + 1, done, total};
    return 0;
}

static pg_outputs *run(const pg_model *of, const tiny *m, const batch *b, int without, uint32_t flags, int n_threads,
                       told *progress) {
    pg_forward_options options = options_of(flags);
    pg_inputs *in = NULL;
    pg_outputs *out = NULL;
    options.n_threads = n_threads;
    if (progress) {
        options.progress = tell;
        options.progress_user = progress;
    }
    OK(create(b, m, without, NULL, &in));
    OK(pg_forward(of, in, &options, &out));
    pg_inputs_close(&in);
    return out;
}

static const float *last_of(const pg_outputs *out, const batch *b, const tiny *m) {
    return get(out, "last_hidden_state", 3, b->n_rows, b->n_tokens, m->hidden, 1);
}

/* Hidden states of all layers are kept row by row: those calls say what the others must give. */
static void same_as_row_by_row(const pg_model *of, const tiny *m, const batch *b, int without, uint32_t flags) {
    told one_by_one = {0}, together = {0};
    pg_outputs *wanted =
        run(of, m, b, without, flags | PG_FORWARD_HIDDEN_STATES | PG_FORWARD_LAST_HIDDEN, 1, &one_by_one);
    const size_t n = (size_t)(b->n_rows * b->n_tokens) * sizeof(float);
    for (int n_threads = 1; n_threads <= 3; n_threads += 2) {
        together = (told){0};
        pg_outputs *found = run(of, m, b, without, flags | PG_FORWARD_LAST_HIDDEN, n_threads, &together);
        assert_memory_equal(last_of(found, b, m), last_of(wanted, b, m), n * (size_t)m->hidden);
        assert_memory_equal(logits_of(found, b, m), logits_of(wanted, b, m), n * (size_t)m->info.vocab_size);
        if (!(without & WITHOUT_LABELS)) assert_true(loss_of(found) == loss_of(wanted));
        assert_true(together.n < one_by_one.n); /* some rows were run together */
        assert_int_equal(together.done, together.total);
        assert_int_equal(together.total, one_by_one.total);
        pg_outputs_close(&found);
    }
    pg_outputs_close(&wanted);
}

static void same_as_alone(const pg_model *of, const tiny *m, const batch *b, int without) {
    pg_outputs *all = run(of, m, b, without, PG_FORWARD_EMBEDDINGS, 1, NULL);
    for (int r = 0; r < b->n_rows; r++) {
        batch alone;
        make_batch(&alone, m, &rows[r], 1, LEFT, without & WITHOUT_TYPES ? 1 : 0); /* padding: causal, as the others */
        pg_outputs *single = run(of, m, &alone, without, PG_FORWARD_EMBEDDINGS, 1, NULL);
        assert_memory_equal(last_of(all, b, m) + (r * b->n_tokens + b->first[r]) * m->hidden,
                            last_of(single, &alone, m) + alone.first[0] * m->hidden,
                            (size_t)(b->length[r] * m->hidden) * sizeof(float));
        pg_outputs_close(&single);
        free(alone.pixels);
    }
    pg_outputs_close(&all);
}

static pg_model *open_kind(size_t k, const tiny *m) {
    pg_model *opened = NULL;
    pg_model_options options;
    OK(pg_model_options_init(&options, sizeof options));
    options.weights = kinds[k].weights;
    options.arithmetic = kinds[k].arithmetic;
    options.cpu_mask = kinds[k].cpu_mask;
    OK(pg_model_open(m->folder, &options, &opened));
    return opened;
}

static void rows_together_are_the_single_rows(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        for (int i = 0; i < 2; i++) {
            const tiny *m = &models[i];
            pg_model *opened = open_kind(k, m);
            for (int c = 0; c < 8; c++) {
                const int side = c & 1 ? RIGHT : LEFT, without = c & 2 ? WITHOUT_TYPES : 0;
                const int extra = c & 4 ? 40 : 0; /* more tokens than one pass takes */
                batch b;
                make_batch(&b, m, rows, N, side, extra);
                if (c & 1) b.mask[5 * b.n_tokens + b.first[5] + 3] = 0; /* hidden between others */
                same_as_row_by_row(opened, m, &b, without, 0);
                same_as_row_by_row(opened, m, &b, without, PG_FORWARD_SKIP_PADDING);
                if (!(c & 1)) same_as_alone(opened, m, &b, without);
                free(b.pixels);
            }
            pg_model_close(&opened);
        }
    }
}

/* The answers to rows of a batch, with all logits. max_context: as long as row 5, which so ends at once; 0: none. */
static pg_result *answer(const pg_model *of, const tiny *m, const batch *b, int64_t max_context, int n_threads,
                         told *progress) {
    pg_generate_options options;
    pg_inputs *in = NULL;
    pg_result *result = NULL;
    OK(pg_generate_options_init(&options, sizeof options));
    options.flags = PG_GENERATE_LOGITS | PG_GENERATE_IGNORE_CONFIG;
    options.max_new_tokens = 4;
    options.max_running = N;
    options.max_context = max_context;
    options.n_threads = n_threads;
    options.progress = tell;
    options.progress_user = progress;
    OK(create(b, m, WITHOUT_LABELS, NULL, &in));
    OK(pg_generate(of, NULL, in, &options, &result));
    pg_inputs_close(&in);
    return result;
}

static void same_answer(const pg_result *found, int64_t row, const pg_result *wanted) {
    static const char *const names[] = {"ids", "logits"};
    for (int i = 0; i < 2; i++) {
        pg_tensor a = {.struct_size = sizeof a}, b = {.struct_size = sizeof b};
        OK(pg_result_get_tensor(found, row, names[i], &a));
        OK(pg_result_get_tensor(wanted, 0, names[i], &b));
        assert_int_equal(a.shape[0], b.shape[0]);
        if (a.shape[0] > 0)
            assert_memory_equal(a.data, b.data, (size_t)a.shape[0] * (i ? (size_t)a.shape[1] * sizeof(float) : 8));
    }
}

static void prompts_together_are_the_single_prompts(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        for (int i = 0; i < 2; i++) {
            const tiny *m = &models[i];
            pg_model *opened = open_kind(k, m);
            for (int c = 0; c < 4; c++) {
                static const row_spec text[N] = {{0, 5, 0, 1}, {0, 4, 2, 2},   {0, 3, 3, 3}, {0, 9, 5, 4},
                                                 {0, 8, 0, 5}, {0, 20, 10, 6}, {0, 7, 0, 7}, {0, 6, 0, 8}};
                const row_spec *of = c & 1 ? rows : text;
                told together = {0};
                batch b;
                make_batch(&b, m, of, N, c & 2 ? RIGHT : LEFT, 0);
                const int64_t max_context = c & 1 ? 0 : b.length[5];
                pg_result *all = answer(opened, m, &b, max_context, c & 2 ? 3 : 1, &together);
                assert_int_equal(together.done, together.total);
                assert_int_equal(together.total, N * m->n_layers);
                if (!(c & 1))
                    assert_true(together.n <=
                                6 * (m->n_layers + 2)); /* 8 rows, at most 6 passes: each tells of its layers */
                for (int r = 0; r < N; r++) {
                    told one = {0};
                    batch alone;
                    make_batch(&alone, m, &of[r], 1, LEFT, 0);
                    pg_result *single = answer(opened, m, &alone, max_context, 1, &one);
                    same_answer(all, r, single);
                    pg_result_close(&single);
                    free(alone.pixels);
                }
                pg_result_close(&all);
                free(b.pixels);
            }
            pg_model_close(&opened);
        }
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_together_are_the_single_rows),
                                       cmocka_unit_test(prompts_together_are_the_single_prompts)};
    return RUN_TESTS(tests, open_models, close_models);
}
