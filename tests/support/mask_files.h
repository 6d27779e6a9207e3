/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a mask decoder with random weights: names and shapes of big_vision's vae-oid.npz, as numpy.savez() and
 * numpy.savez_compressed() write them, or wrong in one way; and the safetensors copy. Running out of memory ends the
 * test program.
 */
#ifndef TESTS_MASK_FILES_H
#define TESTS_MASK_FILES_H

#include "support.h"

/* How a .npz is written, and what is wrong with it. */
typedef struct npz_options {
    int deflated, cut_shape, drop; /* array number cut_shape has another shape; number drop is left out; -1: none */
    int method;                    /* that members say; 0: the true one */
    uint32_t size;                 /* that members say to have unpacked; 0: the true one */
    int zip64, fortran, version;   /* version of .npy, less 1 */
    /* The directory says of this member: that it lies where the one before it does; that it has the name of that one.
     * 0: of none. */
    int same_place, same_name;
    int local_name; /* the member's own header has another name; 0: none has */
    int encrypted;  /* 1: members say that they are */
} npz_options;
#define NPZ_PLAIN \
    { .cut_shape = -1, .drop = -1 }

bytes make_npz(const npz_options *options);
/* What is wrong with the third tensor of a safetensors file, or behind the last. */
typedef enum safetensors_layout {
    LAYOUT_SOUND,
    LAYOUT_OVERLAP, /* it has the place of the second, which is as large */
    LAYOUT_HOLE,    /* 16 bytes before it belong to none */
    LAYOUT_REST     /* 16 bytes behind the last */
} safetensors_layout;
bytes make_safetensors(safetensors_layout layout);

#endif
