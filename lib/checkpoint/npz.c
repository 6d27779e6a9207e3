/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Reading NumPy archives: PKWARE's APPNOTE.TXT 6.3.10 (zip), NEP 1 (.npy); deflate by zlib. */
#include "checkpoint/npz.h"

#include <string.h>
#include <zlib.h>

#include "base/crc32.h"
#include "base/float16.h"
#include "base/shape.h"

enum { MOST_MEMBERS = 4096, END_SIZE = 22, MOST_COMMENT = 65535, LOCAL_SIZE = 30, ENTRY_SIZE = 46 };
enum { MOST_NPY_HEADER = 4096, MOST_DIMS = 8 };

static uint32_t u16(const uint8_t *p) { return (uint32_t)(p[0] | p[1] << 8); }
static uint32_t u32(const uint8_t *p) { return u16(p) | u16(p + 2) << 16; }
static uint64_t u64(const uint8_t *p) { return u32(p) | (uint64_t)u32(p + 4) << 32; }

/* ---- the zip file ---- */

/* The end of the central directory: the last record of that kind whose comment reaches to the end. NULL: none. */
static const uint8_t *find_end(const uint8_t *data, size_t size) {
    for (size_t back = END_SIZE; back <= size && back <= END_SIZE + MOST_COMMENT; back++) {
        const uint8_t *p = data + size - back;
        if (memcmp(p, "PK\5\6", 4) == 0 && u16(p + 20) == back - END_SIZE) return p;
    }
    return NULL;
}

/* The directory: where it begins, its bytes and entries; of zip64 where the plain record says so. */
static pg_status find_directory(const pgi_npz *npz, uint64_t *at, uint64_t *bytes, uint64_t *n) {
    const uint8_t *end = find_end(npz->data, npz->size);
    if (!end)
        return pgi_error(PG_ERROR_FORMAT, "%s: not a NumPy archive (.npz), or cut off: no end of a zip file",
                         npz->path);
    *n = u16(end + 10), *bytes = u32(end + 12), *at = u32(end + 16);
    if ((*n == UINT16_MAX || *bytes == UINT32_MAX || *at == UINT32_MAX) && end - npz->data >= 20 &&
        memcmp(end - 20, "PK\6\7", 4) == 0) {
        const uint64_t place = u64(end - 12);
        if (npz->size < 56 || place > npz->size - 56 || memcmp(npz->data + place, "PK\6\6", 4) != 0)
            return pgi_error(PG_ERROR_FORMAT, "%s: the zip64 record is not where the file says", npz->path);
        *n = u64(npz->data + place + 32), *bytes = u64(npz->data + place + 40), *at = u64(npz->data + place + 48);
    }
    if (*at > npz->size || *bytes > npz->size - *at)
        return pgi_error(PG_ERROR_FORMAT, "%s: the directory of the zip file lies beyond its %zu bytes", npz->path,
                         npz->size);
    if (*n > MOST_MEMBERS)
        return pgi_error(PG_ERROR_LIMIT, "%s: the archive has %llu members, expected at most %d", npz->path,
                         (unsigned long long)*n, MOST_MEMBERS);
    return PG_OK;
}

/* Takes sizes and place from the zip64 field of an entry, where the entry itself says UINT32_MAX. 0: it has none. */
static int read_zip64(const uint8_t *extra, size_t size, pgi_npz_member *m) {
    uint64_t *const wanted[] = {&m->size, &m->packed, &m->offset};
    while (size >= 4) {
        const size_t n = u16(extra + 2);
        if (n > size - 4) return 0;
        if (u16(extra) == 1) {
            size_t at = 0;
            for (int i = 0; i < 3; i++) {
                if (*wanted[i] != UINT32_MAX) continue;
                if (n - at < 8) return 0;
                *wanted[i] = u64(extra + 4 + at);
                at += 8;
            }
            return 1;
        }
        extra += 4 + n, size -= 4 + n;
    }
    return 0;
}

/* One entry of the directory, `left` bytes to its end; *used: its bytes. */
static pg_status read_entry(const pgi_npz *npz, const uint8_t *p, uint64_t left, pgi_npz_member *m, uint64_t *used) {
    if (left < ENTRY_SIZE || memcmp(p, "PK\1\2", 4) != 0)
        return pgi_error(PG_ERROR_FORMAT, "%s: the directory of the zip file is broken or cut off", npz->path);
    const size_t n_name = u16(p + 28), n_extra = u16(p + 30), n_comment = u16(p + 32);
    *used = ENTRY_SIZE + n_name + n_extra + n_comment;
    if (*used > left) return pgi_error(PG_ERROR_FORMAT, "%s: the directory of the zip file is cut off", npz->path);
    *m = (pgi_npz_member){
        .name = p + ENTRY_SIZE,
        .name_size = n_name,
        .method = (int)u16(p + 10),
        .crc32 = u32(p + 16),
        .packed = u32(p + 20),
        .size = u32(p + 24),
        .offset = u32(p + 42),
    };
    if (m->packed == UINT32_MAX || m->size == UINT32_MAX || m->offset == UINT32_MAX)
        (void)read_zip64(p + ENTRY_SIZE + n_name, n_extra, m);
    if (u16(p + 8) & 1) return pgi_error(PG_ERROR_UNSUPPORTED, "%s: the archive is encrypted", npz->path);
    return PG_OK;
}

pg_status pgi_npz_open(const pgi_memory *memory, const char *path, const uint8_t *data, size_t size, pgi_npz *out) {
    uint64_t at = 0, bytes = 0, n = 0;
    pgi_npz npz = {.path = path, .memory = memory, .data = data, .size = size};
    PGI_TRY(find_directory(&npz, &at, &bytes, &n));
    npz.members = pgi_alloc(memory, (size_t)n + 1, sizeof *npz.members);
    if (!npz.members) return PG_ERROR_MEMORY;
    pg_status status = PG_OK;
    for (; npz.n < n && status >= 0; npz.n++) {
        uint64_t used = 0;
        status = read_entry(&npz, data + at, bytes, &npz.members[npz.n], &used);
        at += used, bytes -= used;
    }
    if (status < 0) {
        pgi_npz_close(&npz);
        return status;
    }
    *out = npz;
    return PG_OK;
}

void pgi_npz_close(pgi_npz *npz) {
    if (npz->memory) pgi_free(npz->memory, npz->members);
    *npz = (pgi_npz){0};
}

static void *zlib_alloc(void *memory, unsigned count, unsigned size) { return pgi_alloc(memory, count, size); }
static void zlib_free(void *memory, void *block) { pgi_free(memory, block); }

/* Inflates exactly `size` bytes. */
static pg_status inflate_member(const pgi_npz *npz, const char *name, const uint8_t *packed, size_t n_packed,
                                uint8_t *out, size_t size) {
    pgi_memory memory = *npz->memory;
    z_stream stream = {.zalloc = zlib_alloc, .zfree = zlib_free, .opaque = &memory};
    stream.next_in = (uint8_t *)(uintptr_t)packed;
    stream.avail_in = (unsigned)n_packed;
    stream.next_out = out;
    stream.avail_out = (unsigned)size;
    int result = inflateInit2(&stream, -MAX_WBITS);
    if (result == Z_OK) {
        result = inflate(&stream, Z_FINISH);
        if (result == Z_BUF_ERROR && stream.avail_out > 0) result = Z_DATA_ERROR; /* the input ends early */
        (void)inflateEnd(&stream);
    }
    if (result == Z_MEM_ERROR) return PG_ERROR_MEMORY;
    if (result == Z_STREAM_END && stream.avail_out == 0) return PG_OK;
    return pgi_error(PG_ERROR_FORMAT,
                     "%s: %s: the deflated data are broken, or not the %zu bytes that the archive says", npz->path,
                     name, size);
}

static const pgi_npz_member *find(const pgi_npz *npz, const char *name) {
    const size_t size = strlen(name);
    for (size_t i = 0; i < npz->n; i++) {
        const pgi_npz_member *m = &npz->members[i];
        if (m->name_size == size + 4 && memcmp(m->name, name, size) == 0 && memcmp(m->name + size, ".npy", 4) == 0)
            return m;
    }
    return NULL;
}

/* No other member begins in a member's bytes, which end at `end`; nor does one have its name. */
static pg_status check_alone(const pgi_npz *npz, const char *name, const pgi_npz_member *m, uint64_t end) {
    for (size_t i = 0; i < npz->n; i++) {
        const pgi_npz_member *other = &npz->members[i];
        if (other == m) continue;
        if (other->offset >= m->offset && other->offset < end)
            return pgi_error(PG_ERROR_FORMAT, "%s: %s overlaps another member of the archive", npz->path, name);
        if (other->name_size == m->name_size && memcmp(other->name, m->name, m->name_size) == 0)
            return pgi_error(PG_ERROR_FORMAT, "%s: %s is in the archive twice", npz->path, name);
    }
    return PG_OK;
}

/* The packed bytes of a member, behind its local header. */
static pg_status locate(const pgi_npz *npz, const char *name, const pgi_npz_member *m, const uint8_t **packed) {
    const uint64_t size = npz->size;
    if (size < LOCAL_SIZE || m->offset > size - LOCAL_SIZE || memcmp(npz->data + m->offset, "PK\3\4", 4) != 0)
        return pgi_error(PG_ERROR_FORMAT, "%s: %s: the member is not where the directory says", npz->path, name);
    const uint8_t *local = npz->data + m->offset;
    const uint64_t at = m->offset + LOCAL_SIZE + u16(local + 26) + u16(local + 28);
    if (at > size || m->packed > size - at)
        return pgi_error(PG_ERROR_FORMAT, "%s: %s: the member lies beyond the file's %zu bytes", npz->path, name,
                         npz->size);
    if (u16(local + 26) != m->name_size || memcmp(local + LOCAL_SIZE, m->name, m->name_size) != 0)
        return pgi_error(PG_ERROR_FORMAT, "%s: %s: another member is where the directory says", npz->path, name);
    PGI_TRY(check_alone(npz, name, m, at + m->packed));
    *packed = npz->data + at;
    return PG_OK;
}

/* ---- the .npy file ---- */

typedef struct npy {
    char type[8]; /* "<f4" */
    int fortran, n_dims;
    int64_t shape[MOST_DIMS];
    size_t data_at;
} npy;

static const char *skip(const char *p) {
    while (*p == ' ' || *p == ':' || *p == ',') p++;
    return p;
}

/* What stands behind 'key': of the header's dictionary; NULL: nothing. */
static const char *value_of(const char *header, const char *key) {
    const size_t n = strlen(key);
    for (const char *p = header; (p = strstr(p, key)) != NULL; p += n)
        if (p > header && (p[-1] == '\'' || p[-1] == '"') && p[n] == p[-1]) return skip(p + n + 1);
    return NULL;
}

/* "(128, 512)" */
static int read_shape(const char *p, npy *out) {
    if (!p || *p++ != '(') return 0;
    for (p = skip(p); *p != ')'; p = skip(p)) {
        int64_t n = 0;
        if (out->n_dims == MOST_DIMS || *p < '0' || *p > '9') return 0;
        for (; *p >= '0' && *p <= '9'; p++) {
            if (n > INT32_MAX) return 0;
            n = n * 10 + (*p - '0');
        }
        out->shape[out->n_dims++] = n;
    }
    return 1;
}

static int read_dictionary(const char *header, npy *out) {
    const char *type = value_of(header, "descr"), *order = value_of(header, "fortran_order");
    if (!type || !order || (*type != '\'' && *type != '"')) return 0;
    const char *end = strchr(type + 1, *type);
    if (!end || (size_t)(end - type - 1) >= sizeof out->type) return 0;
    memcpy(out->type, type + 1, (size_t)(end - type - 1));
    out->fortran = strncmp(order, "True", 4) == 0;
    return (out->fortran || strncmp(order, "False", 5) == 0) && read_shape(value_of(header, "shape"), out);
}

static pg_status read_npy(const pgi_npz *npz, const char *name, const uint8_t *data, size_t size, npy *out) {
    char header[MOST_NPY_HEADER + 1];
    *out = (npy){0};
    if (size < 12 || memcmp(data, "\x93NUMPY", 6) != 0 || data[6] < 1 || data[6] > 3)
        return pgi_error(PG_ERROR_FORMAT, "%s: %s: no .npy array of version 1 to 3", npz->path, name);
    const size_t n = data[6] == 1 ? u16(data + 8) : u32(data + 8), at = data[6] == 1 ? 10 : 12;
    if (n > MOST_NPY_HEADER || n > size - at)
        return pgi_error(PG_ERROR_FORMAT,
                         "%s: %s: the header of the array has %zu bytes, expected at most %d, and no "
                         "more than there are",
                         npz->path, name, n, MOST_NPY_HEADER);
    memcpy(header, data + at, n);
    header[n] = 0;
    out->data_at = at + n;
    if (!read_dictionary(header, out))
        return pgi_error(PG_ERROR_FORMAT, "%s: %s: the header of the array is not NumPy's", npz->path, name);
    return PG_OK;
}

static int width_of(const npy *array) {
    static const char *const types[] = {"<f2", "<f4", "<f8"};
    for (int i = 0; i < 3; i++)
        if (strcmp(array->type, types[i]) == 0) return 2 << i;
    return 0;
}

static float number_at(const uint8_t *data, int width) {
    float number;
    double wide;
    if (width == 2) return pgi_f32_from_f16(pgi_load_u16(data));
    if (width == 4) {
        memcpy(&number, data, sizeof number);
        return number;
    }
    memcpy(&wide, data, sizeof wide);
    return (float)wide;
}

/* To C's order, where the last index runs fastest; in Fortran's order it is the first. */
static void convert(const npy *array, const uint8_t *data, int64_t n, float *out) {
    const int width = width_of(array);
    int64_t index[MOST_DIMS] = {0};
    for (int64_t i = 0; i < n; i++) {
        int64_t from = i;
        if (array->fortran) {
            from = 0;
            for (int k = array->n_dims - 1; k >= 0; k--) from = from * array->shape[k] + index[k];
            for (int k = array->n_dims - 1; k >= 0 && ++index[k] == array->shape[k]; k--) index[k] = 0;
        }
        out[i] = number_at(data + from * width, width);
    }
}

/* Holds an array against what is wanted. */
static pg_status check_array(const pgi_npz *npz, const char *name, const npy *array, const int64_t *shape, int n_dims) {
    int same = array->n_dims == n_dims;
    for (int i = 0; same && i < n_dims; i++) same = array->shape[i] == shape[i];
    char found[PGI_SHAPE_TEXT], expected[PGI_SHAPE_TEXT];
    if (!same)
        return pgi_error(PG_ERROR_FORMAT, "%s: %s: found shape %s, expected %s", npz->path, name,
                         pgi_shape_text(array->n_dims, array->shape, ", ", found),
                         pgi_shape_text(n_dims, shape, ", ", expected));
    if (width_of(array) == 0)
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: %s has numbers of type %s, expected <f2, <f4 or <f8", npz->path,
                         name, array->type);
    return PG_OK;
}

static pg_status read_array(const pgi_npz *npz, const char *name, const uint8_t *data, size_t size,
                            const int64_t *shape, int n_dims, float *out) {
    npy array;
    int64_t n = 1;
    PGI_TRY(read_npy(npz, name, data, size, &array));
    PGI_TRY(check_array(npz, name, &array, shape, n_dims));
    for (int i = 0; i < n_dims; i++) n *= shape[i];
    if (size - array.data_at != (size_t)n * (size_t)width_of(&array))
        return pgi_error(PG_ERROR_FORMAT, "%s: %s has %zu bytes of numbers, expected %lld", npz->path, name,
                         size - array.data_at, (long long)n * width_of(&array));
    convert(&array, data + array.data_at, n, out);
    return PG_OK;
}

pg_status pgi_npz_read(const pgi_npz *npz, const char *name, const int64_t *shape, int n_dims, float *out) {
    const pgi_npz_member *m = find(npz, name);
    const uint8_t *packed = NULL;
    uint64_t most = MOST_NPY_HEADER + 12;
    int64_t n = 1;
    for (int i = 0; i < n_dims; i++) n *= shape[i];
    most += (uint64_t)n * 8;
    if (!m) return pgi_error(PG_ERROR_FORMAT, "%s: no array %s, expected one", npz->path, name);
    PGI_TRY(locate(npz, name, m, &packed));
    if (m->size > most || m->packed > most + most / 1000 + 64)
        return pgi_error(PG_ERROR_FORMAT, "%s: %s has %llu bytes, %llu of them packed, expected at most %llu",
                         npz->path, name, (unsigned long long)m->size, (unsigned long long)m->packed,
                         (unsigned long long)most);
    if (m->method != 0 && m->method != 8)
        return pgi_error(PG_ERROR_UNSUPPORTED, "%s: %s is packed by method %d, expected 0 (stored) or 8 (deflated)",
                         npz->path, name, m->method);
    if (m->method == 0 && m->packed != m->size)
        return pgi_error(PG_ERROR_FORMAT, "%s: %s is stored, but its two sizes differ", npz->path, name);
    uint8_t *unpacked = m->method == 8 ? pgi_alloc(npz->memory, (size_t)m->size + 1, 1) : NULL;
    if (m->method == 8 && !unpacked) return PG_ERROR_MEMORY;
    const uint8_t *data = m->method == 8 ? unpacked : packed;
    pg_status status = PG_OK;
    if (m->method == 8) status = inflate_member(npz, name, packed, (size_t)m->packed, unpacked, (size_t)m->size);
    if (status >= 0 && pgi_crc32(0, data, (size_t)m->size) != m->crc32)
        status = pgi_error(PG_ERROR_FORMAT, "%s: %s: the checksum is not that of the data", npz->path, name);
    if (status >= 0) status = read_array(npz, name, data, (size_t)m->size, shape, n_dims, out);
    pgi_free(npz->memory, unpacked);
    return status;
}
