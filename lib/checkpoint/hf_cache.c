/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The local Hugging Face cache, as huggingface_hub finds it (constants.py, file_download.py
 * try_to_load_from_cache(), _validators.py validate_repo_id()), without the network.
 */
#include "checkpoint/hf_cache.h"

#include <string.h>

#include "base/file.h"
#include "base/variables.h"
#include "checkpoint/diagnose.h"

enum { MAX_ID = 96 * 2 + 1, MAX_REF = 4096 };

static int is_name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.';
}

/* "name" or "org/name": letters, digits, - _ . of which - and . are not at the ends, no "--", no "..". */
static int is_model_id(const char *id, size_t size) {
    size_t slashes = 0, part = 0;
    if (size == 0 || size > MAX_ID) return 0;
    for (size_t i = 0; i <= size; i++) {
        if (i < size && id[i] != '/') {
            if (!is_name_char(id[i])) return 0;
            if (i > 0 && (id[i] == '.' || id[i] == '-') && id[i - 1] == id[i]) return 0;
            continue;
        }
        if (i == part || i - part > 96) return 0;
        if (id[part] == '-' || id[part] == '.' || id[i - 1] == '-' || id[i - 1] == '.') return 0;
        if (i < size && ++slashes > 1) return 0;
        part = i + 1;
    }
    return 1;
}

/* A branch, tag, commit or "refs/pr/1": parts of name characters, no part "." or "..". */
static int is_revision(const char *text, size_t size) {
    size_t part = 0;
    if (size == 0 || size > 255) return 0;
    for (size_t i = 0; i <= size; i++) {
        if (i < size && text[i] != '/') {
            if (!is_name_char(text[i])) return 0;
            continue;
        }
        size_t length = i - part;
        if (length == 0 || (length <= 2 && text[part] == '.' && text[i - 1] == '.')) return 0;
        part = i + 1;
    }
    return 1;
}

/* Slashes at the end, which messages and paths go without; "/" stays. */
static void drop_slashes(pgi_buffer *path) {
    while (path->size > 1 && pgi_path_is_slash((char)path->data[path->size - 1])) path->data[--path->size] = '\0';
}

static pg_status append_text(pgi_buffer *out, const char *text) { return pgi_buffer_append(out, text, strlen(text)); }

/* Python's expanduser: "~" and "~/..." (another user's "~name" stays as it is). */
static pg_status expand_user(const char *text, pgi_buffer *out) {
    if (text[0] != '~' || (text[1] != '\0' && !pgi_path_is_slash(text[1]))) return append_text(out, text);
    PGI_TRY(pgi_system_home(out));
    while (out->size > 0 && pgi_path_is_slash((char)out->data[out->size - 1])) out->data[--out->size] = '\0';
    return append_text(out, text + 1);
}

/* Python's expandvars: $NAME and ${NAME}; one that is not set stays as it is. */
static pg_status expand_variables(const char *text, pgi_buffer *out) {
    while (*text) {
        const char *dollar = strchr(text, '$');
        if (!dollar) return append_text(out, text);
        PGI_TRY(pgi_buffer_append(out, text, (size_t)(dollar - text)));
        int braced = dollar[1] == '{';
        const char *name = dollar + 1 + braced;
        size_t size = 0;
        if (braced) {
            while (name[size] && name[size] != '}') size++;
        } else {
            while (is_name_char(name[size]) && name[size] != '-' && name[size] != '.') size++;
        }
        const char *end = name + size + (braced && name[size] == '}');
        int is_set = 0;
        char key[256];
        if (size > 0 && size < sizeof key && (!braced || name[size] == '}')) {
            memcpy(key, name, size);
            key[size] = '\0';
            PGI_TRY(pgi_system_variable(key, out, &is_set));
        }
        if (!is_set) PGI_TRY(pgi_buffer_append(out, dollar, (size_t)(end - dollar)));
        text = end;
    }
    return PG_OK;
}

/* The cache folder of the environment, and where its path comes from. An empty variable counts as unset
 * (huggingface_hub would take it for the current folder). */
static pg_status environment_cache(const pgi_memory *memory, pgi_buffer *out, const char **source) {
    static const struct {
        const char *variable, *below;
    } places[] = {{"HF_HUB_CACHE", ""},
                  {"HUGGINGFACE_HUB_CACHE", ""},
                  {"HF_HOME", "/hub"},
                  {"XDG_CACHE_HOME", "/huggingface/hub"}};
    const char *below = "/huggingface/hub";
    *source = "the default, as HF_HUB_CACHE and HF_HOME are not set";
    pgi_buffer value, user;
    pgi_buffer_init(&value, memory);
    pgi_buffer_init(&user, memory);
    pg_status status = PG_OK;
    for (size_t i = 0; status >= 0 && i < sizeof places / sizeof *places; i++) {
        int is_set;
        status = pgi_system_variable(places[i].variable, &value, &is_set);
        if (value.size == 0) continue;
        below = places[i].below;
        *source = places[i].variable;
        break;
    }
    if (status >= 0) status = expand_user(value.size ? (const char *)value.data : "~/.cache", &user);
    if (status >= 0) status = expand_variables((const char *)user.data, out);
    pgi_buffer_free(&user);
    pgi_buffer_free(&value);
    PGI_TRY(status);
    drop_slashes(out);
    return append_text(out, below);
}

/* The caller's cache folder as it is written, as huggingface_hub takes cache_dir; NULL: that of the environment. */
static pg_status find_cache(const pgi_memory *memory, const char *cache, pgi_buffer *out, const char **source) {
    if (!cache) return environment_cache(memory, out, source);
    *source = "the caller";
    PGI_TRY(append_text(out, cache));
    drop_slashes(out);
    return PG_OK;
}

/* Replaces a name under refs/ by the commit it holds. A commit, or a revision that has no ref, stays. */
static pg_status resolve_ref(const pgi_memory *memory, const char *repo, pgi_buffer *revision) {
    pgi_buffer path, text;
    pgi_buffer_init(&path, memory);
    pgi_buffer_init(&text, memory);
    pg_status status;
    PGI_GOTO(pgi_buffer_printf(&path, "%s/refs/%s", repo, (const char *)revision->data), done);
    if (!pgi_file_exists((const char *)path.data)) goto done;
    PGI_GOTO(pgi_file_read((const char *)path.data, MAX_REF, &text), done);
    const char *commit = (const char *)text.data;
    size_t size = text.size;
    while (size > 0 && (commit[size - 1] == '\n' || commit[size - 1] == '\r' || commit[size - 1] == ' ')) size--;
    if (!is_revision(commit, size) || memchr(commit, '/', size)) {
        status = pgi_error(PG_ERROR_FORMAT, "%s: found \"%.*s\", expected a commit", (const char *)path.data,
                           size > 60 ? 60 : (int)size, commit);
        goto done;
    }
    revision->size = 0;
    status = pgi_buffer_append(revision, commit, size);
done:
    pgi_buffer_free(&path);
    pgi_buffer_free(&text);
    return status;
}

/* `model` is ORG/NAME or NAME, optionally with @REVISION: a branch, tag or commit; without it "main". */
static pg_status find_snapshot(const pgi_memory *memory, const char *model, const char *cache, pgi_buffer *repo,
                               pgi_buffer *revision, pgi_buffer *path) {
    const char *at = strchr(model, '@');
    size_t id_size = at ? (size_t)(at - model) : strlen(model);
    if (!is_model_id(model, id_size) || (at && !is_revision(at + 1, strlen(at + 1))))
        return pgi_error(PG_ERROR_NOT_FOUND,
                         "%s: found no such folder, and it is no model id either (expected ORG/NAME)", model);

    const char *source;
    int number;
    PGI_TRY(find_cache(memory, cache, repo, &source));
    size_t cache_size = repo->size;
    PGI_TRY(append_text(repo, "/models--"));
    for (size_t i = 0; i < id_size; i++)
        PGI_TRY(model[i] == '/' ? append_text(repo, "--") : pgi_buffer_append(repo, model + i, 1));
    const char *folder = (const char *)repo->data;
    if (!pgi_folder_look(folder, &number)) {
        if (number) return pgi_system_error(folder, "open", number);
        return pgi_error(
            PG_ERROR_NOT_FOUND,
            "%s: found neither a folder of that name nor a downloaded model: looked at %s and %s (the cache "
            "%.*s comes from %s)",
            model, model, folder, (int)cache_size, folder, source);
    }

    PGI_TRY(append_text(revision, at ? at + 1 : "main"));
    PGI_TRY(resolve_ref(memory, folder, revision));
    if (memchr(revision->data, '/', revision->size)) revision->size = 0; /* a ref that is not there: no folder either */
    PGI_TRY(pgi_buffer_printf(path, "%s/snapshots/%s", folder, revision->size ? (const char *)revision->data : "-"));
    if (!pgi_folder_look((const char *)path->data, &number)) {
        if (number) return pgi_system_error((const char *)path->data, "open", number);
        return pgi_error(PG_ERROR_NOT_FOUND, "%s: revision %s is not in the cache: looked at %s/refs/%s and %s", model,
                         at ? at + 1 : "main", folder, at ? at + 1 : "main", (const char *)path->data);
    }
    return PG_OK;
}

pg_status pgi_hf_cache_find(const pgi_memory *memory, const char *model, const char *cache, char **out) {
    *out = NULL;
    if (!*model) return pgi_error(PG_ERROR_ARGUMENT, "the model is an empty string, expected a folder or a model id");
    if (cache && !*cache)
        return pgi_error(PG_ERROR_ARGUMENT, "the cache is an empty string, expected a folder or NULL");
    int number;
    if (pgi_folder_look(model, &number)) { /* as in transformers, a folder wins over a model id */
        *out = pgi_copy_string(memory, model, strlen(model));
        return *out ? PG_OK : PG_ERROR_MEMORY;
    }
    if (pgi_path_is_url(model))
        return pgi_error(PG_ERROR_NOT_FOUND,
                         "%s: found a URL, expected a checkpoint folder or a model id; nothing is downloaded here: "
                         "download it with 'hf download ORG/NAME' and give ORG/NAME",
                         model);
    if (!number && pgi_file_exists(model))
        return pgi_diagnose_file(
            pgi_error(PG_ERROR_ARGUMENT, "%s: found a file, expected a checkpoint folder or a model id", model), model);

    pgi_buffer repo, revision, path;
    pgi_buffer_init(&repo, memory);
    pgi_buffer_init(&revision, memory);
    pgi_buffer_init(&path, memory);
    pg_status status = find_snapshot(memory, model, cache, &repo, &revision, &path);
    /* what could not be looked at may still be a model id: that of a service in a folder of another user */
    if ((status == PG_ERROR_NOT_FOUND || status == PG_ERROR_IO) && number)
        status = pgi_system_error(model, "open", number);
    if (status >= 0) {
        *out = pgi_copy_string(memory, (const char *)path.data, path.size);
        if (!*out) status = PG_ERROR_MEMORY;
    }
    pgi_buffer_free(&repo);
    pgi_buffer_free(&revision);
    pgi_buffer_free(&path);
    return status;
}

/* Whether `path` is below the first `size` bytes of `folder`; both without links. */
static int is_below(const char *path, const char *folder, size_t size) {
    return strncmp(path, folder, size) == 0 && (path[size] == '/' || (size == 1 && folder[0] == '/'));
}

pg_status pgi_hf_cache_check_inside(const char *folder, const char *path) {
    static const char blobs[] = "/blobs/";
    char real_folder[PGI_PATH_SIZE], real_path[PGI_PATH_SIZE];
    int number = pgi_path_real(folder, real_folder);
    if (number) return pgi_system_error(folder, "open", number);
    number = pgi_path_real(path, real_path);
    if (number) return pgi_system_error(path, "open", number);
    if (is_below(real_path, real_folder, strlen(real_folder))) return PG_OK;
    const char *revision = strrchr(real_folder, '/');
    size_t repository = (size_t)(revision - real_folder); /* of the bytes before "/snapshots/REVISION" */
    static const char snapshots[] = "/snapshots";
    if (repository >= sizeof snapshots &&
        memcmp(revision - sizeof snapshots + 1, snapshots, sizeof snapshots - 1) == 0) {
        repository -= sizeof snapshots - 1;
        if (is_below(real_path, real_folder, repository) &&
            strncmp(real_path + repository, blobs, sizeof blobs - 1) == 0)
            return PG_OK;
    }
    return pgi_error(
        PG_ERROR_UNSUPPORTED,
        "%s: found a link to %s, outside of the folder, expected a file; it would be copied as it is: put the "
        "file itself in its place if it belongs to the model",
        path, real_path);
}
