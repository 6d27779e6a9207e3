/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The steps of a training. Which rows a call gets follows from its number, so that a training that is gone on from has
 * the order that it would have had. */
#include "train_loop.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loss_plot.h"

enum { SAVE_SECONDS = 600 };

/* ---- plan ---- */

static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int tool_train_plan(tool_training *t) {
    tool_train_settings *s = &t->settings;
    t->n_calls = divide_up((int64_t)t->training.n, s->batch);
    const int64_t an_epoch = divide_up(t->n_calls, s->accumulate);
    if (s->n_steps == 0) s->n_steps = divide_up(s->epochs * t->n_calls, s->accumulate);
    if (s->evaluate_every == 0) s->evaluate_every = an_epoch;
    if (s->save_every == 0) s->save_every = an_epoch;
    t->epoch = t->saved_step = -1;
    t->order = malloc(t->training.n * sizeof *t->order);
    t->rows = malloc((size_t)s->batch * sizeof *t->rows);
    const int named = asprintf(&t->last, t->validation.n > 0 ? "%s/last" : "%s", s->folder) >= 0;
    if (!named) t->last = NULL;
    return t->order && t->rows && named;
}

void tool_train_free(tool_training *t) {
    pg_trainer_close(&t->trainer);
    tool_train_log_close(&t->log);
    free(t->training.rows);
    free(t->validation.rows);
    free(t->order);
    free(t->rows);
    free(t->last);
}

/* The rows of a call of the whole training, counted from 0. */
static size_t rows_of_call(tool_training *t, int64_t call) {
    const int64_t epoch = call / t->n_calls, batch = t->settings.batch;
    const size_t first = (size_t)(call % t->n_calls * batch);
    size_t n = 0;
    if (epoch != t->epoch) tool_train_shuffle(t->order, t->training.n, t->settings.seed, (uint64_t)epoch);
    t->epoch = epoch;
    while (n < (size_t)batch && first + n < t->training.n) {
        t->rows[n] = t->training.rows[t->order[first + n]];
        n++;
    }
    return n;
}

static double epochs_done(const tool_training *t) {
    return (double)(t->step * t->settings.accumulate) / (double)t->n_calls;
}

/* ---- what is told ---- */

int32_t tool_train_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    tool_training *t = user;
    const double part = total > 0 ? (double)done / (double)total : 0;
    t->progress->part =
        t->rows_now > 0 ? part * t->rows_now : ((double)t->calls + part) / (double)t->settings.accumulate;
    tool_progress_update(t->progress, phase, done, total);
    return tool_interrupted() != 0;
}

/* A line for each step, unless it would stand beside the bar. */
static int tells_steps(const tool_training *t) { return !t->progress->enabled || !isatty(STDOUT_FILENO); }

static int tell_step(tool_training *t, const pg_train_result *result) {
    json_t *line = json_pack("{s:I, s:f, s:f, s:f, s:f, s:I, s:I, s:f}", "step", (json_int_t)t->step, "epoch",
                             epochs_done(t), "loss", result->loss, "gradient_norm", result->gradient_norm,
                             "learning_rate", result->learning_rate, "labels", (json_int_t)result->n_labels, "tokens",
                             (json_int_t)result->n_tokens, "seconds", tool_seconds() - t->begun);
    const tool_train_point point = {.step = t->step, .loss = result->loss};
    snprintf(t->progress->note, sizeof t->progress->note, ", loss %.4g", result->loss);
    t->progress->part = 0;
    tool_progress_images(t->progress, (size_t)t->step, (size_t)t->settings.n_steps, 0);
    if (!tool_train_log_add(&t->log, point, json_incref(line))) {
        json_decref(line);
        return tool_fail_text("no memory for the log");
    }
    if (t->settings.json) return tool_print_json(line);
    json_decref(line);
    if (!tells_steps(t)) return TOOL_OK;
    printf("step %lld/%lld  epoch %.2f  loss %.4f  learning rate %.3g  gradient %.3g\n", (long long)t->step,
           (long long)t->settings.n_steps, epochs_done(t), result->loss, result->learning_rate, result->gradient_norm);
    return tool_close_stdout();
}

static int tell_validation(tool_training *t, double loss) {
    const int is_best = t->log.best_step < 0 || loss < t->log.best;
    json_t *line = json_pack("{s:I, s:f, s:f, s:b}", "step", (json_int_t)t->step, "epoch", epochs_done(t),
                             "validation_loss", loss, "best", is_best);
    const tool_train_point point = {.step = t->step, .is_validation = 1, .loss = loss};
    if (!tool_train_log_add(&t->log, point, json_incref(line))) {
        json_decref(line);
        return tool_fail_text("no memory for the log");
    }
    if (t->settings.json) return tool_print_json(line);
    json_decref(line);
    tool_progress_clear(t->progress);
    printf("step %lld/%lld  epoch %.2f  validation loss %.4f%s\n", (long long)t->step, (long long)t->settings.n_steps,
           epochs_done(t), loss, is_best ? "  (the least so far)" : "");
    return tool_close_stdout();
}

/* ---- states ---- */

static int save_to(const tool_training *t, const char *folder) {
    const pg_status status = pg_trainer_save(t->trainer, folder);
    if (status < 0) tool_fail(status, TOOL_STAGE_TRAIN);
    return status < 0 ? TOOL_FAILED : TOOL_OK;
}

/* Saves the newest state, the log and the curve. A state of the least validation loss is saved as the adapter, too, and
 * before the log, which must not tell of an adapter that is not there. */
static int save(tool_training *t) {
    int status = t->log.best_step == t->step ? save_to(t, t->settings.folder) : TOOL_OK;
    if (status == TOOL_OK) status = tool_train_log_write(&t->log);
    if (status == TOOL_OK) status = save_to(t, t->last);
    t->save_failed = status != TOOL_OK;
    if (status != TOOL_OK) return status;
    t->saved_step = t->step;
    t->saved_at = tool_seconds();
    if (!t->plot_failed && !tool_loss_plot(t->settings.plot, &t->log)) t->plot_failed = 1; /* not again and again */
    return TOOL_OK;
}

/* ---- learning ---- */

/* Calls until the parameters are updated. *sum: of all of them. */
static pg_status learn(tool_training *t, pg_train_result *sum) {
    double loss = 0;
    *sum = (pg_train_result){.struct_size = sizeof *sum};
    for (t->calls = 0; !sum->updated; t->calls++) {
        pg_inputs *inputs = NULL;
        pg_train_result result = {.struct_size = sizeof result};
        const size_t n = rows_of_call(t, t->step * t->settings.accumulate + t->calls);
        pg_status status = tool_train_encode(&t->encoder, t->training.data, t->rows, n, &inputs);
        if (status >= 0) status = pg_trainer_step(t->trainer, inputs, &result);
        pg_inputs_close(&inputs);
        if (status < 0) return status;
        loss += result.loss * (double)result.n_labels;
        result.n_labels += sum->n_labels;
        result.n_tokens += sum->n_tokens;
        *sum = result;
    }
    sum->loss = loss / (double)sum->n_labels;
    t->calls = 0;
    t->step++;
    return PG_OK;
}

/* The mean loss over all labels of the validation. */
static pg_status evaluate(tool_training *t, double *loss) {
    const tool_progress steps = *t->progress;
    const size_t batch = (size_t)t->settings.batch;
    int64_t n_labels = 0;
    pg_status status = PG_OK;
    *loss = 0;
    tool_progress_begin(t->progress, "rows of the validation", 0, t->validation.n);
    for (size_t i = 0; i < t->validation.n && status >= 0; i += batch) {
        pg_inputs *inputs = NULL;
        pg_train_result result = {.struct_size = sizeof result};
        const size_t n = t->validation.n - i < batch ? t->validation.n - i : batch;
        t->rows_now = (double)n;
        status = tool_train_encode(&t->encoder, t->validation.data, t->validation.rows + i, n, &inputs);
        if (status >= 0) status = pg_trainer_evaluate(t->trainer, inputs, &result);
        pg_inputs_close(&inputs);
        *loss += result.loss * (double)result.n_labels;
        n_labels += result.n_labels;
        t->progress->part = 0;
        tool_progress_images(t->progress, i + n, t->validation.n, 0);
    }
    tool_progress_clear(t->progress);
    *t->progress = steps;
    t->progress->shown = 0;
    t->rows_now = 0;
    *loss /= (double)n_labels;
    return status;
}

static pg_status look(tool_training *t) {
    double loss;
    pg_status status = evaluate(t, &loss);
    if (status < 0) return status;
    if (tell_validation(t, loss) != TOOL_OK) return TOOL_TOLD;
    return save(t) == TOOL_OK ? PG_OK : TOOL_TOLD;
}

/* After each so many steps, and at the end. */
static int validation_is_due(const tool_training *t) {
    return t->validation.n > 0 && (t->step >= t->settings.n_steps || t->step % t->settings.evaluate_every == 0);
}

/* Whether a validation is due that was not done, at the beginning or where it was interrupted. */
static int misses_validation(const tool_training *t) {
    if (!validation_is_due(t)) return 0;
    for (size_t i = t->log.n; i-- > 0 && t->log.points[i].step == t->step;)
        if (t->log.points[i].is_validation) return 0;
    return 1;
}

static int stops_early(const tool_training *t) {
    return t->settings.early_stop > 0 && t->log.n_since_best >= t->settings.early_stop;
}

/* A step, and what is due behind it. */
static pg_status take_step(tool_training *t) {
    pg_train_result result;
    const tool_train_settings *s = &t->settings;
    pg_status status = learn(t, &result);
    if (status < 0) return status;
    if (tell_step(t, &result) != TOOL_OK) return TOOL_TOLD;
    if (validation_is_due(t)) return look(t);
    if (t->step == s->n_steps || t->step % s->save_every == 0 || tool_seconds() - t->saved_at > SAVE_SECONDS)
        return save(t) == TOOL_OK ? PG_OK : TOOL_TOLD;
    return PG_OK;
}

int tool_train_go_on(tool_training *t) {
    const pg_status status = pg_trainer_get_step(t->trainer, &t->step);
    if (status < 0) return tool_fail(status, TOOL_STAGE_TRAIN);
    t->saved_step = t->step;
    return tool_train_log_resume(&t->log, t->step);
}

/* ---- the end ---- */

static int tell_end(const tool_training *t) {
    const int early = t->step < t->settings.n_steps;
    json_t *line = json_pack("{s:s, s:I, s:f, s:f}", "done", early ? "early stop" : "steps", "step",
                             (json_int_t)t->step, "epoch", epochs_done(t), "seconds", tool_seconds() - t->begun);
    json_object_set_new(line, "adapter", json_string(t->settings.folder)); /* left out when it is no UTF-8 */
    if (t->validation.n > 0) {
        json_object_set_new(line, "best_step", json_integer(t->log.best_step));
        json_object_set_new(line, "validation_loss", json_real(t->log.best));
        json_object_set_new(line, "last", json_string(t->last));
    }
    if (t->settings.json) return tool_print_json(line);
    json_decref(line);
    if (early)
        printf("stopped early: %lld evaluations without a lesser validation loss\n", (long long)t->log.n_since_best);
    if (t->validation.n > 0)
        printf("%s: the adapter of step %lld, with the least validation loss, %.4f; %s: that of step %lld\n",
               t->settings.folder, (long long)t->log.best_step, t->log.best, t->last, (long long)t->step);
    else
        printf("%s: the adapter of step %lld\n", t->settings.folder, (long long)t->step);
    return tool_close_stdout();
}

/* Where the newest state is, for a line that says that it ended before its time; malloc'ed. */
static char *where(const tool_training *t) {
    char *text = NULL;
    const int n = t->saved_step < 0 ? asprintf(&text, "nothing was saved")
                                    : asprintf(&text, "step %lld of %lld is in %s; --resume goes on from there",
                                               (long long)t->saved_step, (long long)t->settings.n_steps, t->last);
    return n < 0 ? NULL : text;
}

/* What could be learned is kept, but for a loss that is no number: the steps before it may be spoiled, too. */
static int end_badly(tool_training *t, pg_status status) {
    const int diverged = status == PG_ERROR_FORMAT, interrupted = tool_interrupted();
    char *why = status == PG_ERROR_CANCELLED || status == TOOL_TOLD ? NULL : tool_with_names(pg_last_error());
    tool_progress_clear(t->progress);
    if (!diverged && t->step > 0 && t->saved_step != t->step && !t->save_failed) save(t);
    char *place = where(t);
    if (interrupted) {
        tool_interrupt_told();
        tool_fail_text("interrupted; %s", place ? place : "no memory");
    } else if (why) {
        tool_fail_text("after step %lld: %s; %s", (long long)t->step, why, place ? place : "no memory");
    } else if (place) {
        fprintf(stderr, "paligemma: %s\n", place);
    }
    free(place);
    free(why);
    return TOOL_FAILED;
}

int tool_train_run(tool_training *t) {
    pg_status status = PG_OK;
    t->begun = t->saved_at = tool_seconds();
    tool_progress_begin(t->progress, "steps", (size_t)t->step, (size_t)t->settings.n_steps);
    if (misses_validation(t)) status = look(t);
    while (status >= 0 && t->step < t->settings.n_steps && !stops_early(t)) {
        if (tool_interrupted()) status = PG_ERROR_CANCELLED;
        if (status >= 0) status = take_step(t);
    }
    if (status < 0) return end_badly(t, status);
    tool_progress_clear(t->progress);
    t->progress->n_images = 0;
    const int told = tell_end(t);
    return t->plot_failed ? TOOL_FAILED : told;
}
