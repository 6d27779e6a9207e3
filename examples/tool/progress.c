/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* How far the tool is, in a line of stderr that is rewritten. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "system.h"
#include "tool.h"

void tool_progress_init(tool_progress *progress) {
    memset(progress, 0, sizeof *progress);
    const char *terminal = getenv("TERM");
    progress->enabled = isatty(STDERR_FILENO) && !(terminal && strcmp(terminal, "dumb") == 0); /* it rewrites a line */
}

/* "3 min" */
static void time_text(double seconds, char text[32]) {
    if (seconds < 99)
        snprintf(text, 32, "%.0f s", seconds);
    else if (seconds < 99 * 60)
        snprintf(text, 32, "%.0f min", seconds / 60);
    else
        snprintf(text, 32, "%.1f h", seconds / 3600);
}

/* ", 3 min left", by what was done since this process began; nothing before that is known. */
static void left_text(const tool_progress *progress, double now, char text[64]) {
    char time[32];
    const double n = (double)(progress->n_done - progress->n_before) + progress->part;
    const double left = (double)(progress->n_images - progress->n_done) - progress->part;
    *text = '\0';
    if (n <= 0 || progress->n_done >= progress->n_images) return;
    time_text((now - progress->start) / n * left, time);
    snprintf(text, 64, ", %s left", time);
}

static void show_images(tool_progress *progress, double now) {
    enum { BAR = 30 };
    char line[240], failed[40] = "", left[64];
    const int columns = tool_terminal_columns();
    if (progress->n_failed) snprintf(failed, sizeof failed, ", %zu failed", progress->n_failed);
    if (progress->is_open) {
        snprintf(line, sizeof line, "%zu %s%s%s", progress->n_done, progress->unit, failed, progress->note);
    } else {
        const int part = (int)(progress->n_done * BAR / progress->n_images);
        left_text(progress, now, left);
        snprintf(line, sizeof line, "[%.*s%*s] %zu/%zu %s%s%s%s", part, "==============================", BAR - part,
                 "", progress->n_done, progress->n_images, progress->unit ? progress->unit : "images", failed,
                 progress->note, left);
    }
    if (columns > 1 && strlen(line) >= (size_t)columns)
        line[columns - 1] = '\0'; /* a line that wraps is not rewritten */
    fprintf(stderr, "\r%s\033[K", line);
    progress->last = now;
    progress->shown = 1;
}

void tool_progress_begin(tool_progress *progress, const char *unit, size_t n_before, size_t n) {
    tool_progress_clear(progress);
    progress->unit = unit;
    progress->note[0] = '\0';
    progress->part = 0;
    progress->n_done = progress->n_before = n_before;
    progress->n_images = n;
    progress->n_failed = 0;
    progress->start = tool_seconds();
}

void tool_progress_images(tool_progress *progress, size_t n_done, size_t n_images, size_t n_failed) {
    const double now = tool_seconds();
    if (n_done == 0) progress->start = now;
    progress->n_done = n_done;
    progress->n_images = n_images;
    progress->n_failed = n_failed;
    if (progress->enabled && (n_images || progress->is_open) &&
        (!progress->shown || n_done == n_images || now - progress->last >= 0.1))
        show_images(progress, now);
}

int32_t tool_progress_update(void *user, int32_t phase, int64_t done, int64_t total) {
    static const char *const names[] = {[PG_PHASE_LOAD] = "loading",
                                        [PG_PHASE_VISION] = "looking at the image",
                                        [PG_PHASE_PREFILL] = "reading the prompt",
                                        [PG_PHASE_CONVERT] = "converting",
                                        [PG_PHASE_VERIFY] = "verifying",
                                        [PG_PHASE_TRAIN] = "training"}; /* decode: the text itself */
    enum { N_NAMES = sizeof names / sizeof names[0], BAR = 30 };
    tool_progress *progress = user;
    if (!progress->enabled || phase < 0 || phase >= N_NAMES || !names[phase]) return 0;
    double now = tool_seconds();
    if (progress->shown && done < total && now - progress->last < 0.1) return 0;
    if ((progress->n_images || progress->is_open) && phase != PG_PHASE_LOAD) {
        if (now - progress->last >= 0.1) show_images(progress, now);
        return 0;
    }
    progress->last = now;
    progress->shown = 1;
    if (phase != PG_PHASE_CONVERT && phase != PG_PHASE_VERIFY) {
        fprintf(stderr, "\r%s %lld/%lld\033[K", names[phase], (long long)done, (long long)total);
        return 0;
    }
    int part = total > 0 ? (int)((double)done / (double)total * BAR) : BAR;
    fprintf(stderr, "\r%s [%.*s%*s] %lld/%lld MB\033[K", names[phase], part,
            "==============================", BAR - part, "", (long long)(done / 1000000),
            (long long)(total / 1000000));
    return 0;
}

void tool_progress_clear(tool_progress *progress) {
    if (progress->shown) fputs("\r\033[K", stderr);
    progress->shown = 0;
}
