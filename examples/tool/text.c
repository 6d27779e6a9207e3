/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* What the tool says: text that cannot steer a terminal, messages of the library in the tool's words, log lines. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

size_t tool_decode_character(const unsigned char *p, size_t size, uint32_t *out) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = p[0] < 0x80                   ? 1
               : p[0] >= 0xC2 && p[0] < 0xE0 ? 2
               : (p[0] & 0xF0) == 0xE0       ? 3
               : (p[0] & 0xF8) == 0xF0       ? 4
                                             : 0;
    if (n == 0 || n > size) return 0;
    *out = n == 1 ? p[0] : p[0] & (0x7Fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80) return 0;
        *out = *out << 6 | (p[i] & 0x3F);
    }
    return *out >= least[n] && *out <= 0x10FFFF && (*out < 0xD800 || *out > 0xDFFF) ? n : 0;
}

/* Control characters (C0, DEL, C1), and those that reorder the text around them. */
static int steers(uint32_t c) {
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}

char *tool_escaped(const char *text, size_t size, int keep_lines) {
    enum { LONGEST = 6 }; /* "\u202E"; a byte becomes "\x9B" */
    char *out = malloc(size * LONGEST + 1), *to = out;
    for (size_t i = 0; out && i < size;) {
        uint32_t c = 0;
        size_t n = tool_decode_character((const unsigned char *)text + i, size - i, &c);
        if (n && (!steers(c) || (keep_lines && (c == '\n' || c == '\t')))) {
            memcpy(to, text + i, n);
            to += n;
        } else if (n && c == '\n') {
            to = stpcpy(to, "\\n");
        } else if (n && c > 0xFF) {
            to += sprintf(to, "\\u%04X", (unsigned)c);
        } else {
            to += sprintf(to, "\\x%02X", n ? (unsigned)c : (unsigned)(unsigned char)text[i]);
        }
        i += n ? n : 1;
    }
    if (out) *to = '\0';
    return out;
}

int tool_write_text(const char *text, size_t size) {
    static int is_terminal = -1;
    if (is_terminal < 0) is_terminal = isatty(STDOUT_FILENO);
    if (!is_terminal) return tool_write(text, size);
    char *shown = tool_escaped(text, size, 1);
    if (!shown) {
        errno = ENOMEM;
        return 0;
    }
    int written = tool_write(shown, strlen(shown));
    free(shown);
    return written;
}

/* What messages of the library call its options and calls, and what the tool does. Those that no option of the tool
 * reaches have plain words. tests/tool finds the names that are missing here. */
static const struct {
    const char *of_library, *of_tool;
} names[] = {
    {"expected max_new_tokens in the options, or PG_GENERATE_IGNORE_CONFIG", "expected --max-new-tokens"},
    {"PG_ANSWER_POINTS", "points"},
    {"PG_ARITHMETIC_*", "--arithmetic KIND"},
    {"PG_BOX_1023", "1023"},
    {"PG_BOX_1024", "1024"},
    {"PG_DECODE_SKIP_SPECIAL", "leaving out special tokens"},
    {"PG_DTYPE_F32", "f32"},
    {"PG_ENCODE_EXIF", "turning by EXIF"},
    {"PG_ENCODE_KEEP_ENDS", "keeping the ends"},
    {"PG_ENCODE_LITERAL", "--literal"},
    {"PG_ENCODE_OPEN_SUFFIX", "a suffix without eos"},
    {"PG_ENCODE_OVER_WHITE", "--alpha white"},
    {"PG_ENCODE_TRUNCATE", "truncation"},
    {"PG_FORWARD_*", "what a pass keeps"},
    {"PG_FORWARD_ATTENTIONS", "keeping attention"},
    {"PG_FORWARD_ATTENTION_HEAD_MEAN", "the mean over heads"},
    {"PG_FORWARD_ATTENTION_TO_IMAGE", "attention to the image"},
    {"PG_GENERATE_*", "what a run keeps"},
    {"PG_GENERATE_DETECT", "--constrain"},
    {"PG_GENERATE_IGNORE_CONFIG", "--max-new-tokens"},
    {"PG_GENERATE_LOGITS", "logits"},
    {"PG_GENERATE_LOG_PROBS", "--scores"},
    {"PG_GENERATE_SCORES", "scores"},
    {"PG_GENERATE_SEGMENT", "--constrain"},
    {"PG_FIT_*", "the ways to fit an image"},
    {"PG_FIT_STRETCH", "an image that is stretched"},
    {"PG_IMAGE_*", "the kinds of an image"},
    {"PG_IMAGE_GRAY8", "grey pixels"},
    {"PG_IMAGE_OVER_BACKGROUND", "laying over a colour"},
    {"PG_IMAGE_RGB8", "RGB pixels"},
    {"PG_IMAGE_UYVY", "UYVY pixels"},
    {"PG_KV_*", "--kv KIND"},
    {"PG_MODEL_IN_MEMORY", "--in-memory"},
    {"PG_MODEL_VERIFY", "--verify"},
    {"PG_MODE_*", "with or without --big-vision"},
    {"PG_PADDING_*", "the kinds of padding"},
    {"PG_PROCESSOR_IMAGES_ONLY", "image settings alone"},
    {"PG_PROCESSOR_SENTENCEPIECE", "merging by sentencepiece"},
    {"PG_PROCESSOR_TEXT_ONLY", "the tokenizer alone"},
    {"PG_REQUEST_*", "settings of a request"},
    {"PG_RESAMPLE_*", "the filters"},
    {"PG_SAMPLING_*", "settings of sampling"},
    {"PG_SAMPLING_RANDOM", "a random draw"},
    {"PG_SCHEDULE_*", "--schedule KIND"},
    {"PG_SCORE_*", "how answers are scored"},
    {"PG_SCORE_LITERAL", "--literal"},
    {"PG_SCORE_NO_EOS", "--no-eos"},
    {"PG_SIDE_*", "left or right"},
    {"PG_SIDE_LEFT", "left"},
    {"PG_TRAIN_*", "how is trained"},
    {"PG_TRAIN_RSLORA", "--rslora"},
    {"PG_TRUNCATION_*", "the kinds of truncation"},
    {"PG_TRUNCATION_SUFFIX", "truncation of the suffix"},
    {"PG_WEIGHTS_*", "--weights FORMAT"},
    {"PG_WEIGHTS_INT4", "--weights int4"},
    {"PG_WEIGHTS_INT8", "--weights int8"},
    {"PG_WEIGHTS_STORED", "--weights stored"},
    {"PG_WORKER_LEAVE_CPU_FREE", "leaving a CPU free"},
    {"PG_YUV_BT601", "BT.601"},
    {"PG_YUV_BT709", "BT.709"},
    {"PG_YUV_FULL", "the full range"},
    {"PG_YUV_VIDEO", "the range of video"},
    {"attention_layer", "--attention-layer"},
    {"cpu_mask", "--cpu"},
    {"int8_layers", "--int8-layers"},
    {"max_context", "--max-context"},
    {"max_new_tokens", "--max-new-tokens"},
    {"n_threads", "--threads"},
    {"pg_adapter_open()", "--adapter FOLDER"},
    {"pg_generate()", "a run"},
    {"pg_image.roi", "--roi"},
    {"pg_image_from_planes()", "planes"},
    {"pg_inputs_create()", "inputs"},
    {"pg_model_adapt()", "--adapter FOLDER"},
    {"pg_model_convert()", "'paligemma convert'"},
    {"pg_processor_encode_batch()", "rows of data"},
    {"pg_session_prefill()", "a prompt"},
    {"pg_trainer_save()", "'paligemma train'"},
    {"pg_worker_cancel()", "cancelling a request"},
    {"pg_worker_poll()", "looking for events"},
    {"pg_worker_submit()", "a request"},
    {"n_beams", "--beams"},
    {"n_return", "--texts"},
};

static int is_name_part(char c) {
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* The entry that stands at the beginning of text as a whole word; NULL: none. */
static const char *name_at(const char *text, size_t *size) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        *size = strlen(names[i].of_library);
        if (strncmp(text, names[i].of_library, *size) == 0 && !is_name_part(text[*size])) return names[i].of_tool;
    }
    /* "pg_model_options.weights": the field alone */
    *size = strspn(text, "abcdefghijklmnopqrstuvwxyz_");
    if (strncmp(text, "pg_", 3) != 0 || text[*size] != '.' || !is_name_part(text[*size + 1])) return NULL;
    ++*size;
    return "";
}

char *tool_with_names(const char *text) {
    enum { LONGEST = 4 }; /* at most: no name of the tool is more than four times as long as the library's */
    char *out = calloc(strlen(text) * LONGEST + 1, 1), *to = out;
    int inside = 0; /* of a word */
    for (const char *from = text; out && *from;) {
        size_t size = 0;
        const char *name = inside ? NULL : name_at(from, &size);
        inside = !name && is_name_part(*from);
        if (!name) {
            *to++ = *from++;
            continue;
        }
        from += size;
        to = stpcpy(to, name);
    }
    if (out) *to = '\0';
    return out;
}

void tool_log_line(void *user, int32_t level, const char *message) {
    const tool_log *log = user;
    if (level > (log->verbose ? PG_LOG_INFO : PG_LOG_WARNING)) return;
    if (log->progress) tool_progress_clear(log->progress);
    if (log->clears) fputs("\r\033[K", stderr);
    char *named = tool_with_names(message), *shown = named ? tool_escaped(named, strlen(named), 0) : NULL;
    if (shown) fprintf(stderr, "%s%s\n", level <= PG_LOG_WARNING ? "paligemma: warning: " : "", shown);
    free(named);
    free(shown);
}
