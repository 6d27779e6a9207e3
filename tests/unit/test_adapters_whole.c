/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Adapters that have weights of modules whole: what stands in place of what, where embedding and head are tied, and
 * what DoRA of the same or of another adapter makes of it. The rules are PEFT's: tests/oracle/adapters_live.py. */
#include "run_tests.h"

#include "forward_fixture.h"
#include "model/model.h"
#include "tiny_adapter.h"

enum { H = TINY_T_HIDDEN, TIED = 0, UNTIED, COPIED, N_MODELS };

static tiny bases[N_MODELS];
static int64_t vocab;

static int open_bases(void **state) {
    (void)state;
    tiny_options options = tiny_saved_today();
    for (int i = 0; i < N_MODELS; i++) {
        options.head = i == UNTIED ? TINY_HEAD_BOTH : i == COPIED ? TINY_HEAD_COPY : TINY_HEAD_TIED;
        open_tiny(&bases[i], &options, NULL);
    }
    vocab = bases[TIED].info.vocab_size;
    return 0;
}

static int close_bases(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i++) close_tiny(&bases[i]);
    return 0;
}

#define PLAIN "{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6}"
#define WITH(field) "{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6," field "}"
#define EMBEDDING "base_model.model.model.language_model.embed_tokens"
#define HEAD "base_model.model.lm_head"

/* A tensor whose values follow from its own seed, so that two adapters may have the same. */
typedef struct tensor {
    adapter_tensor of;
    uint64_t seed;
    const float *values; /* NULL: random ones */
} tensor;

static pg_adapter *open_adapter(const tiny *m, const char *config, const tensor *tensors, int n) {
    char path[512];
    adapter_tensor of[8];
    float *made[8];
    pg_adapter *adapter = NULL;
    assert_true(n <= 8);
    for (int i = 0; i < n; i++) {
        of[i] = tensors[i].of;
        int64_t count = 1;
        for (int d = 0; d < of[i].n_dims; d++) count *= of[i].shape[d];
        made[i] = malloc((size_t)count * sizeof(float));
        rng random = {tensors[i].seed};
        for (int64_t k = 0; k < count; k++)
            made[i][k] = tensors[i].values ? tensors[i].values[k] : of[i].offset + of[i].scale * rng_unit(&random);
    }
    make_temp_folder(path, sizeof path);
    adapter_write_values(path, config, of, n, (const float *const *)made);
    for (int i = 0; i < n; i++) free(made[i]);
    OK(pg_adapter_open(m->model, path, NULL, &adapter));
    remove_folder(path);
    return adapter;
}

/* The base with both, and closes them; b may be NULL. */
static pg_model *adapt(const tiny *m, pg_adapter *a, pg_adapter *b) {
    const pg_adapter *const adapters[] = {a, b};
    pg_model *adapted = NULL;
    OK(pg_model_adapt(m->model, adapters, NULL, b ? 2 : 1, &adapted));
    pg_adapter_close(&a);
    pg_adapter_close(&b);
    return adapted;
}

static pg_model *adapt_one(const tiny *m, const char *config, const tensor *tensors, int n) {
    return adapt(m, open_adapter(m, config, tensors, n), NULL);
}

/* Logits of a batch. */
typedef struct result {
    batch b;
    pg_outputs *outputs;
    const float *logits;
    int64_t n;
} result;

/* Closes the model, unless it is a base. */
static void run(const tiny *m, pg_model *of, result *out) {
    pg_forward_options options = options_of(0);
    pg_inputs *in = NULL;
    make_batch(&out->b, m, specs, 3, LEFT, 0);
    OK(create(&out->b, m, 0, NULL, &in));
    OK(pg_forward(of, in, &options, &out->outputs));
    pg_inputs_close(&in);
    out->logits = logits_of(out->outputs, &out->b, m);
    out->n = out->b.n_rows * out->b.n_tokens * m->info.vocab_size;
    if (of != m->model) pg_model_close(&of);
}

static void free_result(result *of) {
    pg_outputs_close(&of->outputs);
    free(of->b.pixels);
}

/* bound 0: they have the same bits. */
static void expect_same(const tiny *m, pg_model *a, pg_model *b, double bound) {
    result x, y;
    run(m, a, &x);
    run(m, b, &y);
    if (bound > 0)
        expect_close(x.logits, y.logits, x.n, bound);
    else
        assert_memory_equal(x.logits, y.logits, (size_t)x.n * sizeof(float));
    free_result(&x);
    free_result(&y);
}

static void expect_different(const tiny *m, pg_model *a, pg_model *b) {
    result x, y;
    run(m, a, &x);
    run(m, b, &y);
    assert_memory_not_equal(x.logits, y.logits, (size_t)x.n * sizeof(float));
    free_result(&x);
    free_result(&y);
}

/* The weight [vocab, H] of a module. */
static tensor weight(const char *name, uint64_t seed) { return (tensor){{name, 2, {vocab, H}, 0, 0.1f}, seed, NULL}; }

/* ---------------------------------------------------------------------------------------------------- tied modules */

/* M.base_layer.weight is the parameter that embedding and head have together, whichever of them has it in the file. */
static void a_base_layer_is_of_both(void **state) {
    const tiny *m = &bases[TIED];
    const tensor head[] = {weight(HEAD ".base_layer.weight", 5)};
    const tensor embedding[] = {weight(EMBEDDING ".base_layer.weight", 5)};
    const tensor both[] = {weight(HEAD ".weight", 5), weight(EMBEDDING ".weight", 5)};
    (void)state;
    expect_same(m, adapt_one(m, PLAIN, head, 1), adapt_one(m, PLAIN, both, 2), 0);
    expect_same(m, adapt_one(m, PLAIN, embedding, 1), adapt_one(m, PLAIN, both, 2), 0);
    m = &bases[UNTIED];
    expect_different(m, adapt_one(m, PLAIN, head, 1), adapt_one(m, PLAIN, both, 2));
    expect_different(m, adapt_one(m, PLAIN, embedding, 1), adapt_one(m, PLAIN, both, 2));
}

/* So it is where a tied head is stored beside the embedding, with the same values; int8 makes the same of both. */
static void a_copied_head_is_tied(void **state) {
    const tensor embedding[] = {weight(EMBEDDING ".base_layer.weight", 5)};
    const tensor head[] = {weight(HEAD ".base_layer.weight", 5)};
    const tensor both[] = {weight(HEAD ".weight", 5), weight(EMBEDDING ".weight", 5)};
    (void)state;
    for (int32_t weights = PG_WEIGHTS_STORED; weights <= PG_WEIGHTS_INT8; weights++) {
        tiny m = bases[COPIED];
        pg_model_options options;
        OK(pg_model_options_init(&options, sizeof options));
        options.weights = weights;
        OK(pg_model_open(m.folder, &options, &m.model));
        for (int again = 0; again < 2; again++)
            expect_same(&m, adapt_one(&m, PLAIN, head, 1), adapt_one(&m, PLAIN, both, 2), 0);
        expect_same(&m, adapt_one(&m, PLAIN, embedding, 1), adapt_one(&m, PLAIN, both, 2), 0);
        pg_model_close(&m.model);
    }
}

/* modules_to_save have a parameter of their own, which the other's base layer leaves alone. */
static void a_saved_module_is_its_own(void **state) {
    const tiny *m = &bases[TIED];
    const tensor saved[] = {weight(HEAD ".weight", 6), weight(EMBEDDING ".weight", 5)};
    const tensor of_head[] = {weight(HEAD ".base_layer.weight", 6), weight(EMBEDDING ".weight", 5)};
    const tensor of_embedding[] = {weight(HEAD ".weight", 6), weight(EMBEDDING ".base_layer.weight", 5)};
    (void)state;
    expect_same(m, adapt_one(m, PLAIN, of_head, 2), adapt_one(m, PLAIN, saved, 2), 0);
    expect_same(m, adapt_one(m, PLAIN, of_embedding, 2), adapt_one(m, PLAIN, saved, 2), 0);
    for (int first = 0; first < 2; first++) { /* and so of two adapters, in both orders */
        pg_adapter *a = open_adapter(m, PLAIN, &of_head[first], 1), *b = open_adapter(m, PLAIN, &of_head[!first], 1);
        expect_same(m, adapt(m, a, b), adapt_one(m, PLAIN, saved, 2), 0);
    }
    const tensor head[] = {weight(HEAD ".base_layer.weight", 6)};
    const tensor embedding[] = {weight(EMBEDDING ".base_layer.weight", 6)};
    pg_adapter *open[] = {open_adapter(m, PLAIN, head, 1), open_adapter(m, PLAIN, embedding, 1)};
    pg_model *adapted = NULL;
    ERROR(pg_model_adapt(m->model, (const pg_adapter *const *)open, NULL, 2, &adapted), PG_ERROR_UNSUPPORTED);
    for (int i = 0; i < 2; i++) pg_adapter_close(&open[i]);
}

/* A, B and the magnitudes of a module. */
#define OF_A(module, rank, in) \
    { {module ".lora_A.weight", 2, {rank, in}, 0, 0.2f}, 11, NULL }
#define OF_B(module, out, rank, size) \
    { {module ".lora_B.weight", 2, {out, rank}, 0, size}, 12, NULL }
#define MAGNITUDE(module, out) \
    { {module ".lora_magnitude_vector", 1, {out}, 0.8f, 0.1f}, 13, NULL }

/* The weight that PEFT writes beside A and B of an embedding is mostly the base's: then it replaces nothing, and the
 * adapter can be weighted. On int8 the embedding stays what it is. */
static void the_bases_own_weight_replaces_nothing(void **state) {
    const tiny *base = &bases[TIED];
    float last, *own = malloc((size_t)(vocab * H) * sizeof *own);
    (void)state;
    assert_int_equal(base->model->weights.text.embedding.dtype, PG_DTYPE_F32);
    memcpy(own, base->model->weights.text.embedding.data, (size_t)(vocab * H) * sizeof *own);
    last = own[vocab * H - 1];
    tensor tensors[] = {{{EMBEDDING ".lora_embedding_A", 2, {3, vocab}, 0, 0.2f}, 11, NULL},
                        {{EMBEDDING ".lora_embedding_B", 2, {H, 3}, 0, 0.2f}, 12, NULL},
                        {{EMBEDDING ".base_layer.weight", 2, {vocab, H}, 0, 0}, 0, own}};
    for (int32_t weights = PG_WEIGHTS_STORED; weights <= PG_WEIGHTS_INT8; weights++) {
        tiny m = *base;
        pg_model_options options;
        OK(pg_model_options_init(&options, sizeof options));
        options.weights = weights;
        OK(pg_model_open(m.folder, &options, &m.model));
        expect_same(&m, adapt_one(&m, PLAIN, tensors, 3), adapt_one(&m, PLAIN, tensors, 2), 0);
        pg_adapter *adapter = open_adapter(&m, PLAIN, tensors, 3);
        pg_adapter_info info = {.struct_size = sizeof info};
        pg_model *adapted = NULL;
        const float half = 0.5f;
        OK(pg_adapter_get_info(adapter, &info));
        assert_int_equal(info.n_parameters, 3 * (vocab + H) + vocab * H);
        OK(pg_model_adapt(m.model, (const pg_adapter *const *)&adapter, &half, 1, &adapted));
        pg_model_close(&adapted);
        pg_adapter_close(&adapter);
        own[vocab * H - 1] = last + 1; /* another one */
        adapter = open_adapter(&m, PLAIN, tensors, 3);
        ERROR(pg_model_adapt(m.model, (const pg_adapter *const *)&adapter, &half, 1, &adapted), PG_ERROR_UNSUPPORTED);
        pg_adapter_close(&adapter);
        own[vocab * H - 1] = last;
        pg_model_close(&m.model);
    }
    free(own);
}

/* With ensure_weight_tying a head has the rank of the embedding, and the scale of its own. */
static void a_tied_head_has_the_embeddings_rank(void **state) {
    static const char tied[] = WITH("\"ensure_weight_tying\":true,\"rank_pattern\":{\"lm_head\":2}");
    static const char the_same[] = WITH("\"alpha_pattern\":{\"lm_head\":9}"); /* 9 / 3 is 6 / 2 */
    const tensor tensors[] = {{{EMBEDDING ".lora_embedding_A", 2, {3, vocab}, 0, 0.2f}, 11, NULL},
                              {{EMBEDDING ".lora_embedding_B", 2, {H, 3}, 0, 0.2f}, 12, NULL},
                              OF_A(HEAD, 3, H),
                              OF_B(HEAD, vocab, 3, 0.2f)};
    char path[512];
    pg_adapter *adapter = NULL;
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        const tiny *m = &bases[i];
        if (i != UNTIED) expect_same(m, adapt_one(m, tied, tensors, 4), adapt_one(m, the_same, tensors, 4), 0);
    }
    const adapter_tensor plain[] = {tensors[2].of, tensors[3].of};
    make_temp_folder(path, sizeof path);
    adapter_write(path, tied, plain, 2, PG_DTYPE_F32, 3);
    ERROR(pg_adapter_open(bases[UNTIED].model, path, NULL, &adapter), PG_ERROR_FORMAT);
    assert_non_null(strstr(pg_last_error(), "expected [2, 32]"));
    remove_folder(path);
}

/* ------------------------------------------------------------------------------------------------------------ DoRA */

#define DORA WITH("\"use_dora\":true")
#define Q "base_model.model.model.language_model.layers.0.self_attn.q_proj"
#define FC2 "base_model.model.model.vision_tower.encoder.layers.0.mlp.fc2"

/* Its norms are those of the weight that the adapter itself has: of twice the weight and twice B they are twice as
 * large, and the layer gives the same. */
static void dora_sees_its_own_weight(void **state) {
    const tiny *m = &bases[TIED];
    tensor of[2][4];
    (void)state;
    for (int i = 0; i < 2; i++) {
        const float size = i ? 0.4f : 0.2f;
        const tensor tensors[4] = {OF_A(Q, 3, H),
                                   OF_B(Q, H, 3, size),
                                   MAGNITUDE(Q, H),
                                   {{Q ".base_layer.weight", 2, {H, H}, 0, size}, 14, NULL}};
        memcpy(of[i], tensors, sizeof tensors);
    }
    expect_same(m, adapt_one(m, DORA, of[0], 4), adapt_one(m, DORA, of[1], 4), 1e-5);
}

/* The same whether an adapter has weight and DoRA, or two have one each, in any order. halves: the parts of `all`. */
static void same_in_two(const tiny *m, const tensor *all, int n, int n_first) {
    for (int turn = 0; turn < 2; turn++) {
        pg_adapter *first = open_adapter(m, PLAIN, all, n_first);
        pg_adapter *second = open_adapter(m, DORA, all + n_first, n - n_first);
        expect_same(m, adapt(m, turn ? second : first, turn ? first : second), adapt_one(m, DORA, all, n), 0);
    }
}

static void dora_sees_what_others_replace(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        const tensor of_weight[] = {
            {{Q ".weight", 2, {H, H}, 0, 0.2f}, 14, NULL}, OF_A(Q, 3, H), OF_B(Q, H, 3, 0.2f), MAGNITUDE(Q, H)};
        const tensor of_bias[] = {{{FC2 ".bias", 1, {TINY_V_HIDDEN}, 0, 0.2f}, 14, NULL},
                                  OF_A(FC2, 3, TINY_V_INTER),
                                  OF_B(FC2, TINY_V_HIDDEN, 3, 0.2f),
                                  MAGNITUDE(FC2, TINY_V_HIDDEN)};
        const tensor of_both[] = {weight(EMBEDDING ".base_layer.weight", 5), OF_A(HEAD, 3, H),
                                  OF_B(HEAD, vocab, 3, 0.2f), MAGNITUDE(HEAD, vocab)};
        const tensor of_embedding[] = {weight(HEAD ".base_layer.weight", 5),
                                       {{EMBEDDING ".lora_embedding_A", 2, {3, vocab}, 0, 0.2f}, 11, NULL},
                                       {{EMBEDDING ".lora_embedding_B", 2, {H, 3}, 0, 0.2f}, 12, NULL},
                                       MAGNITUDE(EMBEDDING, H)};
        same_in_two(&bases[i], of_weight, 4, 1);
        same_in_two(&bases[i], of_bias, 4, 1);
        same_in_two(&bases[i], of_both, 4, 1);
        same_in_two(&bases[i], of_embedding, 4, 1);
    }
}

/* Of tied modules those of the common weight; of a head with twice that and twice B they are twice as large. */
static void dora_sees_a_common_weight(void **state) {
    const tiny *m = &bases[TIED];
    const tensor common[] = {weight(EMBEDDING ".base_layer.weight", 5), OF_A(HEAD, 3, H), OF_B(HEAD, vocab, 3, 0.2f),
                             MAGNITUDE(HEAD, vocab)};
    tensor each[] = {weight(EMBEDDING ".weight", 5), weight(HEAD ".base_layer.weight", 5), OF_A(HEAD, 3, H),
                     OF_B(HEAD, vocab, 3, 0.4f), MAGNITUDE(HEAD, vocab)};
    (void)state;
    each[1].of.scale *= 2;
    expect_same(m, adapt_one(m, DORA, common, 4), adapt_one(m, DORA, each, 5), 1e-5);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_base_layer_is_of_both),
        cmocka_unit_test(a_copied_head_is_tied),
        cmocka_unit_test(a_saved_module_is_its_own),
        cmocka_unit_test(a_tied_head_has_the_embeddings_rank),
        cmocka_unit_test(the_bases_own_weight_replaces_nothing),
        cmocka_unit_test(dora_sees_its_own_weight),
        cmocka_unit_test(dora_sees_what_others_replace),
        cmocka_unit_test(dora_sees_a_common_weight),
    };
    return RUN_TESTS(tests, open_bases, close_bases);
}
