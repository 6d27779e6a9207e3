/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Lines that a person types, or a program writes, on stdin. */
#ifndef PALIGEMMA_TOOL_LINES_H
#define PALIGEMMA_TOOL_LINES_H

typedef struct tool_lines tool_lines;

/* Lines are edited, with a history, where stdin and stdout are a terminal and the tool was built with libedit. NULL: no
 * memory. */
tool_lines *tool_lines_open(const char *prompt);
void tool_lines_close(tool_lines **lines);

/* Whether a person sits there: stdin is a terminal. */
int tool_lines_are_typed(const tool_lines *lines);

/* The next line without its newline, malloc'ed. NULL: the end, or a signal came (tool_interrupted()). */
char *tool_lines_read(tool_lines *lines);

#endif
