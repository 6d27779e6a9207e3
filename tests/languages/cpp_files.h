/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* The files that the tests of paligemma.hpp open. Apart from the tests, since support.h is C alone. */
#ifndef TESTS_CPP_FILES_H
#define TESTS_CPP_FILES_H

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cpp_files {
    char model[512];   /* a checkpoint of tiny.h, with image.png in it */
    char adapter[512]; /* a LoRA of it */
    char masks[600];   /* a mask decoder's file, within `work` */
    char work[512];    /* an empty folder beside that */
} cpp_files;

void cpp_files_make(cpp_files *files);
void cpp_files_remove(const cpp_files *files);
void cpp_remove_folder(const char *path); /* that a test made */

/* The part that is compiled without exceptions and without RTTI; the number of failures. */
int test_returning(const cpp_files *files);

#ifdef __cplusplus
}
#endif

#endif
