/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program of Windows does that loads the DLL by its name:  test_load DLL MODEL IMAGE TEXT
 *
 * It has no manifest, as games have none: names are UTF-8 for the library and wide for Windows. DLL and model are
 * copied to a folder whose path has a blank, letters that no code page has together, and more than 260 characters; the
 * answer is TEXT each time, from several threads too; a thread that is told to stop stops; the DLL can be unloaded and
 * loaded again, and leaves no thread and no handle behind.
 */
#include <paligemma/paligemma.h>
#include <stdio.h>
#include <string.h>
#include <windows.h>

#include <tlhelp32.h>

enum { PATH_SIZE = 1024, N_THREADS = 4, N_LOADS = 5 };

#define FUNCTIONS(X)            \
    X(pg_model_open)            \
    X(pg_model_close)           \
    X(pg_processor_open)        \
    X(pg_processor_close)       \
    X(pg_image_from_path)       \
    X(pg_processor_encode)      \
    X(pg_generate)              \
    X(pg_result_get_text)       \
    X(pg_result_close)          \
    X(pg_inputs_close)          \
    X(pg_generate_options_init) \
    X(pg_cancel_create)         \
    X(pg_cancel_request)        \
    X(pg_cancel_close)          \
    X(pg_last_error)
static struct {
#define MEMBER(name) __typeof__(&(name)) name;
    FUNCTIONS(MEMBER)
} api;

static wchar_t folder[PATH_SIZE];
static char model_path[2 * PATH_SIZE], image_path[2 * PATH_SIZE];
static const char *expected;

/* Ends the program: what comes after would fail for the same reason. */
static void check(int is_true, const char *what) {
    if (is_true) return;
    fprintf(stderr, "test_load: %s: %s (%lu)\n", what, api.pg_last_error ? api.pg_last_error() : "", GetLastError());
    ExitProcess(1);
}

static void copy(const wchar_t *from, const wchar_t *name, const wchar_t *below) {
    wchar_t to[PATH_SIZE];
    swprintf(to, PATH_SIZE, L"%ls\\%ls%ls", folder, below, name);
    check(CopyFileW(from, to, FALSE), "a file cannot be copied");
}

/* The folder, and in it the DLL, the image and the model. */
static void prepare(const wchar_t *dll, const wchar_t *model, const wchar_t *image) {
    wchar_t path[PATH_SIZE], model_folder[PATH_SIZE], pattern[PATH_SIZE];
    WIN32_FIND_DATAW found;
    check(GetTempPathW(PATH_SIZE, path) > 0, "no folder for temporary files");
    swprintf(folder, PATH_SIZE, L"\\\\?\\%lspaligemma \u00f6\u65e5\u672c %lu", path, GetCurrentProcessId());
    check(CreateDirectoryW(folder, NULL), "a folder cannot be made");
    while (wcslen(folder) < 280) {
        wcscat(folder, L"\\\u65e5\u672c and sixty more characters, so that the path gets long");
        check(CreateDirectoryW(folder, NULL), "a folder in it cannot be made");
    }
    copy(dll, L"paligemma.dll", L"");
    copy(image, L"image.png", L"");
    swprintf(model_folder, PATH_SIZE, L"%ls\\model", folder);
    check(CreateDirectoryW(model_folder, NULL), "the model's folder cannot be made");
    swprintf(pattern, PATH_SIZE, L"%ls\\*", model);
    const HANDLE list = FindFirstFileW(pattern, &found);
    check(list != INVALID_HANDLE_VALUE, "the model is not there");
    do {
        if (found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) continue;
        swprintf(path, PATH_SIZE, L"%ls\\%ls", model, found.cFileName);
        copy(path, found.cFileName, L"model\\");
    } while (FindNextFileW(list, &found));
    FindClose(list);
    /* Without the prefix, as a program has it: the library makes long paths work. */
    WideCharToMultiByte(CP_UTF8, 0, model_folder + 4, -1, model_path, sizeof model_path, NULL, NULL);
    swprintf(path, PATH_SIZE, L"%ls\\image.png", folder + 4);
    WideCharToMultiByte(CP_UTF8, 0, path, -1, image_path, sizeof image_path, NULL, NULL);
}

/* All is removed, folder after folder up to the first of ours. */
static void clean(void) {
    static const wchar_t *const below[] = {L"\\model", L""};
    for (size_t i = 0; i < 2; i++) {
        wchar_t path[PATH_SIZE], name[PATH_SIZE];
        WIN32_FIND_DATAW found;
        swprintf(path, PATH_SIZE, L"%ls%ls\\*", folder, below[i]);
        const HANDLE list = FindFirstFileW(path, &found);
        while (list != INVALID_HANDLE_VALUE) {
            swprintf(name, PATH_SIZE, L"%ls%ls\\%ls", folder, below[i], found.cFileName);
            DeleteFileW(name);
            if (!FindNextFileW(list, &found)) break;
        }
        FindClose(list);
        swprintf(path, PATH_SIZE, L"%ls%ls", folder, below[i]);
        check(RemoveDirectoryW(path), "a folder is in use after the DLL was unloaded");
    }
    for (wchar_t *slash; (slash = wcsrchr(folder, '\\')) && wcsstr(folder, L"\\paligemma ") != slash;) {
        *slash = 0;
        RemoveDirectoryW(folder);
    }
}

static HMODULE load(void) {
    wchar_t path[PATH_SIZE];
    swprintf(path, PATH_SIZE, L"%ls\\paligemma.dll", folder);
    const HMODULE dll = LoadLibraryW(path);
    check(dll != NULL, "LoadLibraryW()");
#define FIND(name)                                        \
    do {                                                  \
        const FARPROC found = GetProcAddress(dll, #name); \
        check(found != NULL, #name " is not exported");   \
        memcpy(&api.name, &found, sizeof found);          \
    } while (0);
    FUNCTIONS(FIND)
    return dll;
}

typedef struct models {
    pg_model *model;
    pg_processor *processor;
} models;

static DWORD WINAPI caption(void *user) {
    const models *m = user;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    pg_image image;
    check(api.pg_image_from_path(&image, sizeof image, image_path) == PG_OK, "pg_image_from_path()");
    check(api.pg_processor_encode(m->processor, &image, "caption en", NULL, &inputs) == PG_OK, "encode");
    check(api.pg_generate(m->model, m->processor, inputs, NULL, &result) == PG_OK, "pg_generate()");
    check(strcmp(api.pg_result_get_text(result, 0), expected) == 0, api.pg_result_get_text(result, 0));
    api.pg_result_close(&result);
    api.pg_inputs_close(&inputs);
    return 0;
}

static int32_t request(void *user, int32_t phase, int64_t done, int64_t total) {
    (void)phase, (void)done, (void)total;
    api.pg_cancel_request(user);
    return 0;
}

static void cancelled(const models *m) {
    pg_generate_options options;
    pg_cancel *cancel = NULL;
    pg_inputs *inputs = NULL;
    pg_result *result = NULL;
    pg_image image;
    check(api.pg_cancel_create(&cancel) == PG_OK, "pg_cancel_create()");
    check(api.pg_generate_options_init(&options, sizeof options) == PG_OK, "options");
    options.cancel = cancel;
    options.progress = request;
    options.progress_user = cancel;
    check(api.pg_image_from_path(&image, sizeof image, image_path) == PG_OK, "pg_image_from_path()");
    check(api.pg_processor_encode(m->processor, &image, "caption en", NULL, &inputs) == PG_OK, "encode");
    check(api.pg_generate(m->model, m->processor, inputs, &options, &result) == PG_ERROR_CANCELLED, "no cancelling");
    api.pg_inputs_close(&inputs);
    api.pg_cancel_close(&cancel);
}

static int count_threads(void) {
    THREADENTRY32 entry = {.dwSize = sizeof entry};
    const HANDLE all = CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0);
    int n = 0;
    for (BOOL more = Thread32First(all, &entry); more; more = Thread32Next(all, &entry))
        n += entry.th32OwnerProcessID == GetCurrentProcessId();
    CloseHandle(all);
    return n;
}

static void use(void) {
    models m = {NULL, NULL};
    HANDLE threads[N_THREADS];
    check(api.pg_model_open("C:\\none \xC3\xB6\\model", NULL, &m.model) == PG_ERROR_NOT_FOUND, "a model from nowhere");
    check(api.pg_model_open(model_path, NULL, &m.model) == PG_OK, "pg_model_open()");
    check(api.pg_processor_open(model_path, NULL, &m.processor) == PG_OK, "pg_processor_open()");
    caption(&m);
    for (int i = 0; i < N_THREADS; i++) {
        threads[i] = CreateThread(NULL, 0, caption, &m, 0, NULL);
        check(threads[i] != NULL, "CreateThread()");
    }
    WaitForMultipleObjects(N_THREADS, threads, TRUE, INFINITE);
    for (int i = 0; i < N_THREADS; i++) CloseHandle(threads[i]);
    cancelled(&m);
    api.pg_processor_close(&m.processor);
    api.pg_model_close(&m.model);
}

int wmain(int argc, wchar_t **argv);

int wmain(int argc, wchar_t **argv) {
    static char text[1024];
    check(argc == 5, "usage: test_load DLL MODEL IMAGE TEXT");
    WideCharToMultiByte(CP_UTF8, 0, argv[4], -1, text, sizeof text, NULL, NULL);
    expected = text;
    prepare(argv[1], argv[2], argv[3]);
    const int n_threads = count_threads();
    DWORD handles[N_LOADS];
    for (int i = 0; i < N_LOADS; i++) {
        const HMODULE dll = load();
        use();
        check(count_threads() <= n_threads, "a thread is left");
        check(FreeLibrary(dll), "FreeLibrary()");
        check(GetModuleHandleW(L"paligemma.dll") == NULL, "the DLL stays");
        GetProcessHandleCount(GetCurrentProcess(), &handles[i]);
    }
    memset(&api, 0, sizeof api);
    check(handles[N_LOADS - 1] <= handles[1], "handles are left");
    clean();
    puts("ok");
    return 0;
}
