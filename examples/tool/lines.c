/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Lines of stdin: edited by libedit on a terminal, plain ones otherwise. */
#include "lines.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef TOOL_LIBEDIT
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#endif

struct tool_lines {
    const char *prompt;
    int typed;
#ifdef TOOL_LIBEDIT
    EditLine *editor; /* NULL: plain lines */
    History *history;
#endif
};

#ifdef TOOL_LIBEDIT

static const char *prompt_of(EditLine *editor) {
    void *lines = NULL;
    el_get(editor, EL_CLIENTDATA, &lines);
    return ((const tool_lines *)lines)->prompt;
}

static void open_editor(tool_lines *lines) {
    HistEvent event;
    const char *terminal = getenv("TERM");
    if (!lines->typed || !isatty(STDOUT_FILENO) || !terminal || strcmp(terminal, "dumb") == 0) return;
    /* libedit reads characters as the locale has them; prompts are UTF-8. Numbers stay as they are. */
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
    lines->editor = el_init("paligemma", stdin, stdout, stderr);
    lines->history = lines->editor ? history_init() : NULL;
    if (!lines->editor) return;
    el_set(lines->editor, EL_CLIENTDATA, lines);
    el_set(lines->editor, EL_PROMPT, prompt_of);
    el_set(lines->editor, EL_EDITOR, "emacs");
    el_set(lines->editor, EL_BIND, "\033[3~", "ed-delete-next-char", NULL);
    el_set(lines->editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    if (lines->history && history(lines->history, &event, H_SETSIZE, 1000) >= 0) {
        history(lines->history, &event, H_SETUNIQUE, 1);
        el_set(lines->editor, EL_HIST, history, lines->history);
    }
    el_source(lines->editor, NULL); /* ~/.editrc */
}

static void close_editor(tool_lines *lines) {
    if (lines->history) history_end(lines->history);
    if (lines->editor) el_end(lines->editor);
}

/* *taken: there is an editor. */
static char *read_edited(tool_lines *lines, int *taken) {
    int n = 0;
    HistEvent event;
    *taken = lines->editor != NULL;
    const char *line = lines->editor ? el_gets(lines->editor, &n) : NULL;
    if (!line || n <= 0) return NULL;
    if (lines->history && n > 1) history(lines->history, &event, H_ENTER, line);
    return strndup(line, line[n - 1] == '\n' ? (size_t)n - 1 : (size_t)n);
}

#else

static void open_editor(tool_lines *lines) { (void)lines; }
static void close_editor(tool_lines *lines) { (void)lines; }
static char *read_edited(tool_lines *lines, int *taken) {
    (void)lines;
    *taken = 0;
    return NULL;
}

#endif

tool_lines *tool_lines_open(const char *prompt) {
    tool_lines *lines = calloc(1, sizeof *lines);
    if (!lines) return NULL;
    lines->prompt = prompt;
    lines->typed = isatty(STDIN_FILENO);
    open_editor(lines);
    return lines;
}

void tool_lines_close(tool_lines **lines) {
    if (!*lines) return;
    close_editor(*lines);
    free(*lines);
    *lines = NULL;
}

int tool_lines_are_typed(const tool_lines *lines) { return lines->typed; }

char *tool_lines_read(tool_lines *lines) {
    int edited;
    char *line = read_edited(lines, &edited);
    size_t capacity = 0;
    if (edited) return line;
    if (lines->typed) {
        fputs(lines->prompt, stderr);
        fflush(stderr);
    }
    ssize_t size = getline(&line, &capacity, stdin);
    if (size <= 0) {
        clearerr(stdin); /* after a signal it goes on */
        free(line);
        return NULL;
    }
    if (line[size - 1] == '\n') line[--size] = '\0';
    if (size > 0 && line[size - 1] == '\r') line[size - 1] = '\0'; /* of Windows, whose consoles end lines so */
    return line;
}
