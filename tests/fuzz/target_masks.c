/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Files of a mask decoder. 'z': the rest is a whole file; 'Z': a zip file whose checksums are made right; 'h': the
 * header of a safetensors file, before sound weights; 'n', 'd', '6': replaces the end of a sound .npz, where its
 * directory is, of one that is deflated, of one of zip64; 'b': replaces the beginning of a sound .npz, where the header
 * of an array is, checksums made right. */
#include <stdio.h>
#include <unistd.h>

#include "fuzz.h"
#include "mask_files.h"
#include "mutate.h"

static void use(const char *path, int how) {
    pg_mask_decoder_options options;
    pg_mask_decoder *decoder = NULL;
    int32_t codes[16];
    static float mask[64 * 64];
    pg_mask_decoder_options_init(&options, sizeof options);
    options.allocator = fuzz_allocator();
    for (int i = 0; i < 16; i++) codes[i] = i * 8;
    /* decoding takes a third of a second with sanitizers, so it is seldom done */
    if (MADE(pg_mask_decoder_open(path, &options, &decoder), decoder) &&
        how == 7) /* as the size of the seed safetensors */
        OK(pg_mask_decoder_decode(decoder, codes, mask));
    pg_mask_decoder_close(&decoder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bytes npz, deflated, zip64, tensors;
    char path[600];
    bytes file = {0};
    if (!size || !data[0] || !strchr("zZhnd6b", data[0])) return 0;
    if (!npz.size) {
        npz_options options = NPZ_PLAIN;
        npz = make_npz(&options);
        options.zip64 = 1;
        zip64 = make_npz(&options);
        options.zip64 = 0;
        options.deflated = 1;
        deflated = make_npz(&options);
        tensors = make_safetensors(LAYOUT_SOUND);
    }
    if (data[0] == 'h') {
        uint64_t n = size - 1, header;
        memcpy(&header, tensors.data, 8);
        bytes_add(&file, &n, 8);
        bytes_add(&file, data + 1, size - 1);
        bytes_add(&file, tensors.data + 8 + header, tensors.size - 8 - header);
    } else {
        const bytes *sound = data[0] == 'd' ? &deflated : data[0] == '6' ? &zip64 : &npz;
        const size_t kept = size - 1 < sound->size ? sound->size - (size - 1) : 0;
        if (strchr("nd6", data[0])) bytes_add(&file, sound->data, kept);
        bytes_add(&file, data + 1, size - 1);
        if (data[0] == 'b') bytes_add(&file, sound->data + sound->size - kept, kept);
        if (strchr("Zb", data[0])) repair_zip(&file);
    }
    const char *name = data[0] == 'h' ? "masks.safetensors" : "masks.npz";
    write_file(fuzz_folder(FUZZ_OFFICIAL), name, file.data, file.size);
    bytes_free(&file);
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(FUZZ_OFFICIAL), name);
    use(path, (int)(size % 16));
    return fuzz_end();
}
