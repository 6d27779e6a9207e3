/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Calls of the C++ library sentencepiece, with its exceptions caught. */
#include "tokenizer/spm_wrapper.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <typeinfo>

#include <dlfcn.h>

#include <sentencepiece_processor.h>

struct pgi_spm {
    sentencepiece::SentencePieceProcessor processor;
};

namespace {

/* Runs `body` and turns whatever it throws into a code and a reason. */
template <typename Body>
int guarded(char *reason, size_t reason_size, Body body) noexcept {
    try {
        const sentencepiece::util::Status status = body();
        if (status.ok()) return PGI_SPM_OK;
        std::snprintf(reason, reason_size, "%s", status.ToString().c_str());
    } catch (const std::bad_alloc &) {
        std::snprintf(reason, reason_size, "out of memory");
        return PGI_SPM_MEMORY;
    } catch (const std::exception &e) {
        std::snprintf(reason, reason_size, "%s", e.what());
    } catch (...) {
        std::snprintf(reason, reason_size, "unknown exception");
    }
    return PGI_SPM_REFUSED;
}

/* libsentencepiece.so as the loader knows it, or nullptr: it is linked statically into another object. */
void *sentencepiece_library() noexcept {
    Dl_info info;
    if (!dladdr(&typeid(sentencepiece::SentencePieceProcessor), &info) || !info.dli_fname) return nullptr;
    return dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
}

} // namespace

int pgi_spm_usable(void) {
    static const char *const symbols[] = {"_ZN6google8protobuf11MessageLite14ParseFromArrayEPKvi",
                                          "_ZTIN6google8protobuf11MessageLiteE", "_ZTVN6google8protobuf11MessageLiteE"};
    void *library = sentencepiece_library();
    int usable = 1;
    for (const char *symbol : symbols) {
        void *own = library ? dlsym(library, symbol) : nullptr;
        if (own && dlsym(RTLD_DEFAULT, symbol) != own) usable = 0;
    }
    if (library) dlclose(library);
    return usable;
}

int pgi_spm_open(const void *bytes, size_t size, pgi_spm **out, char *reason, size_t reason_size) {
    *out = nullptr;
    return guarded(reason, reason_size, [&] {
        auto spm = std::make_unique<pgi_spm>();
        auto status = spm->processor.LoadFromSerializedProto({static_cast<const char *>(bytes), size});
        if (status.ok()) *out = spm.release();
        return status;
    });
}

void pgi_spm_close(pgi_spm *spm) { delete spm; }

int pgi_spm_encode(const pgi_spm *spm, const char *text, size_t size, int32_t **ids, size_t *n_ids, char *reason,
                   size_t reason_size) {
    *ids = nullptr;
    *n_ids = 0;
    return guarded(reason, reason_size, [&] {
        /* No Encode() to a vector of ids: it has its message on the stack, and where an allocation fails while protobuf
         * fills a message, the destructor of that message ends the process. So a message that an exception left
         * half-made is given up: some hundred bytes, once for each call that runs out of memory. */
        auto *message = new sentencepiece::ImmutableSentencePieceText();
        const auto status = spm->processor.Encode({text, size}, message->mutable_proto());
        const std::unique_ptr<sentencepiece::ImmutableSentencePieceText> whole(message);
        const size_t n = status.ok() ? whole->pieces_size() : 0;
        if (n == 0) return status;
        *ids = static_cast<int32_t *>(std::malloc(n * sizeof(int32_t)));
        if (!*ids) throw std::bad_alloc();
        for (size_t i = 0; i < n; i++) (*ids)[i] = static_cast<int32_t>(whole->pieces(static_cast<int>(i)).id());
        *n_ids = n;
        return status;
    });
}

void pgi_spm_free_ids(int32_t *ids) { std::free(ids); }
