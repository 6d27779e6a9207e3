/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* How likely each answer to a closed question is: choose MODEL IMAGE PROMPT ANSWER... */
#include <stdio.h>

#include <paligemma/paligemma.h>

static pg_status print_scores(const pg_scores *scores, char **answers) {
    pg_status status = PG_OK;
    for (int64_t i = 0; status >= 0 && i < pg_scores_get_n_answers(scores); i++) {
        pg_score_info info;
        info.struct_size = sizeof info;
        status = pg_scores_get_info(scores, i, &info);
        if (status >= 0) printf("%.3f %s\n", info.probability, answers[i]); /* among these; info.log_prob: of its own */
    }
    return status;
}

int main(int argc, char **argv) {
    pg_model *model = NULL;
    pg_processor *processor = NULL;
    pg_inputs *inputs = NULL;
    pg_scores *scores = NULL;
    pg_image image;
    int failed = argc < 5 || pg_model_open(argv[1], NULL, &model) < 0 ||
                 pg_processor_open(argv[1], NULL, &processor) < 0 ||
                 pg_image_from_path(&image, sizeof image, argv[2]) < 0 ||
                 pg_processor_encode(processor, &image, argv[3], NULL, &inputs) < 0 ||
                 pg_score(model, processor, inputs, (const char *const *)&argv[4], argc - 4, NULL, &scores) < 0 ||
                 print_scores(scores, &argv[4]) < 0;
    if (failed)
        fprintf(stderr, "choose: %s\n", argc < 5 ? "usage: choose MODEL IMAGE PROMPT ANSWER..." : pg_last_error());
    pg_scores_close(&scores);
    pg_inputs_close(&inputs);
    pg_processor_close(&processor);
    pg_model_close(&model);
    return failed;
}
