/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/**
 * @file paligemma.hpp
 * libpaligemma for C++17 and later: this header, over the C library and nothing else. A program that captions an image:
 *
 * @code{.cpp}
 *     const auto model = paligemma::model::open("checkpoint");
 *     const auto processor = paligemma::processor::open("checkpoint");
 *     paligemma::generate_options options;
 *     options.on_text = [](int64_t, std::string_view text, int64_t) { std::cout << text << std::flush; };
 *     const auto inputs = processor.encode(paligemma::image::from_path("photo.jpg"), "caption en");
 *     paligemma::generate(model, processor, inputs, options);
 * @endcode
 *
 * Each function of paligemma.h has one here, with the same name behind the class that it belongs to: pg_model_open() is
 * model::open(), pg_inputs_get_tensor() is inputs::get(), pg_generate() is generate(). Constants (PG_*) and what a call
 * tells about something (pg_model_info, pg_result_info, ...) are those of paligemma.h, which is the reference for
 * ranges, units and defaults.
 *
 * Errors: an outcome<T> is a T, and a call that fails throws paligemma::error. With PALIGEMMA_NO_EXCEPTIONS defined
 * before the header (or -fno-exceptions) an outcome<T> has either a T or an error, and must be looked at. Both kinds
 * may be in one program; they are different types. Where nothing else is said, the errors of a function are those of
 * the C function that its comment names, and memory that the standard library cannot get is its std::bad_alloc.
 *
 * Rules that hold everywhere:
 *  - Handles can be moved, not copied. One that was moved from, or made without arguments, is empty: calls with it give
 *    PG_ERROR_ARGUMENT. They may be destroyed in any order, also in a callback of a call that uses them.
 *  - Threads: as paligemma.h says of the C handle. Briefly: model, processor and mask_decoder may be used by any number
 *    of threads at a time, so may inputs, features, result, scores, outputs, answer and adapter; session, detokenizer,
 *    trainer and calibration by one at a time.
 *  - Nothing is copied but where a function gives a std::string or a std::vector. Spans, tensors and string views point
 *    into the handle that they were asked of, or into the memory that the caller gave; handles that are about to end
 *    give none.
 *  - Options are the C structs, filled with their defaults, with hooks as std::function in place of the C function and
 *    its `user`. What their pointers and spans point to must stay until the call returns. A handle in an option is
 *    given as `options.features = features.get()`.
 *  - Callbacks may throw. The call then ends, all that it took is released, and the exception comes out of the call. An
 *    exception of the log or the allocator comes out of whatever call was under way. A callback may return nothing, or
 * a paligemma::flow to stop without an error. With PALIGEMMA_NO_EXCEPTIONS what a callback throws is an error of the
 *    call, PG_ERROR_CANCELLED with its what().
 *  - Texts are UTF-8 and end at their first byte 0; where sizes count, a function says so.
 */
#ifndef PALIGEMMA_PALIGEMMA_HPP
#define PALIGEMMA_PALIGEMMA_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>
#if __cplusplus > 201703L
#include <ranges>
#endif

#include <paligemma/paligemma.h>

#if !defined(PALIGEMMA_NO_EXCEPTIONS) && !defined(__cpp_exceptions)
#define PALIGEMMA_NO_EXCEPTIONS ///< calls return their errors
#endif

namespace paligemma {
// The two kinds of errors make different types of one name, so that both can be linked into one program.
#ifdef PALIGEMMA_NO_EXCEPTIONS
inline namespace returning {
#else
inline namespace throwing {
#endif

/* ---- Errors ---- */

/** Why a call failed. */
class error : public std::runtime_error {
   public:
    /** status: PG_ERROR_*; message: one line of UTF-8; row: of the batch, -1: none or several. */
    error(pg_status status, const std::string &message, int64_t row = -1)
        : std::runtime_error(message), row_(row), status_(status) {}
    /** PG_ERROR_*: what a program decides by. */
    pg_status status() const noexcept { return status_; }
    /** The row of the batch that the message is about, 0 for the first; -1: none or several. */
    int64_t row() const noexcept { return row_; }

   private:
    int64_t row_;
    pg_status status_;
};

#ifdef PALIGEMMA_NO_EXCEPTIONS
/** What a call gives, or why it failed. */
template <class T>
class [[nodiscard]] outcome {
   public:
    outcome(T value) : held_(std::in_place_index<0>, std::move(value)) {}                ///< success
    outcome(paligemma::error error) : held_(std::in_place_index<1>, std::move(error)) {} ///< failure
    bool has_value() const noexcept { return held_.index() == 0; }                       ///< true: the call succeeded
    explicit operator bool() const noexcept { return has_value(); }                      ///< has_value()
    /** The value. Asked of a failure it ends the program: look first. */
    T &value() & { return *expect(std::get_if<0>(&held_)); }
    const T &value() const & { return *expect(std::get_if<0>(&held_)); }  ///< as above
    T &&value() && { return std::move(*expect(std::get_if<0>(&held_))); } ///< as above, to be moved
    T &operator*() & { return value(); }                                  ///< value()
    const T &operator*() const & { return value(); }                      ///< value()
    T &&operator*() && { return std::move(*this).value(); }               ///< value()
    T *operator->() { return &value(); }                                  ///< value()
    const T *operator->() const { return &value(); }                      ///< value()
    /** The error. Asked of a success it ends the program. */
    const paligemma::error &error() const & { return *expect(std::get_if<1>(&held_)); }

   private:
    template <class P>
    static P *expect(P *found) {
        if (!found) std::abort(); // no exception may say it
        return found;
    }
    std::variant<T, paligemma::error> held_;
};

/** Success, or why a call failed. */
template <>
class [[nodiscard]] outcome<void> {
   public:
    outcome() = default;                                            ///< success
    outcome(paligemma::error error) : error_(std::move(error)) {}   ///< failure
    bool has_value() const noexcept { return !error_; }             ///< true: the call succeeded
    explicit operator bool() const noexcept { return has_value(); } ///< has_value()
    /** The error. Asked of a success it ends the program. */
    const paligemma::error &error() const & {
        if (!error_) std::abort();
        return *error_;
    }

   private:
    std::optional<paligemma::error> error_;
};
#else
/** What a call gives. A call that fails throws an error. */
template <class T>
using outcome = T;
#endif

/** The API version of the library that is running, as pg_version_api(). */
inline uint32_t version_api() noexcept { return pg_version_api(); }
/** The package version, such as "0.1.0". */
inline std::string_view version_string() noexcept { return pg_version_string(); }
/** True when the library that is running fits this header. For programs that load the library themselves. */
inline bool version_compatible() noexcept { return PG_API_COMPATIBLE(pg_version_api()); }
/** The name of a status, such as "PG_ERROR_FORMAT". */
inline std::string_view status_name(pg_status status) noexcept { return pg_status_name(status); }

/* ---- Views: spans, texts, tensors ---- */

/** Some elements that lie one after the other and belong to somebody else. It is made of whatever has data() and
 * size(): std::vector, std::array, std::span, std::string; and std::span can be made of it. */
template <class T>
class span {
   public:
    using element_type = T;                                                          ///< as std::span
    using value_type = std::remove_cv_t<T>;                                          ///< as std::span
    constexpr span() noexcept = default;                                             ///< of no elements
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {} ///< of `size` elements from `data`
    template <std::size_t n>
    constexpr span(T (&array)[n]) noexcept : data_(array), size_(n) {} ///< of an array
    /** Of a container; not of a vector or a string that is about to end. */
    template <class Container, class Data = decltype(std::declval<Container &>().data()),
              class = std::enable_if_t<
                  (std::is_lvalue_reference_v<Container> || std::is_trivially_destructible_v<Container>)&&std::
                      is_convertible_v<std::remove_pointer_t<Data> (*)[], T (*)[]> &&
                  std::is_convertible_v<decltype(std::declval<Container &>().size()), std::size_t>>>
    constexpr span(Container &&container) noexcept : data_(container.data()), size_(container.size()) {}
    constexpr T *data() const noexcept { return data_; }                      ///< the first element
    constexpr std::size_t size() const noexcept { return size_; }             ///< how many there are
    constexpr bool empty() const noexcept { return size_ == 0; }              ///< true: none
    constexpr T *begin() const noexcept { return data_; }                     ///< for loops
    constexpr T *end() const noexcept { return data_ + size_; }               ///< for loops
    constexpr T &operator[](std::size_t index) const { return data_[index]; } ///< not checked
    constexpr T &front() const { return data_[0]; }                           ///< the first; not of an empty span
    constexpr T &back() const { return data_[size_ - 1]; }                    ///< the last; not of an empty span

   private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/** A text that ends with a NUL, which the C library needs: of a literal or a std::string, not of a std::string_view. As
 * a parameter it is read during the call only. */
class zstring {
   public:
    zstring(const char *text) noexcept : text_(text) {}                ///< NULL where the C function takes NULL
    zstring(const std::string &text) noexcept : text_(text.c_str()) {} ///< up to its first NUL
    const char *c_str() const noexcept { return text_; }               ///< the text

   private:
    const char *text_;
};

namespace detail {

/** Throws the error, or returns it. */
template <class T>
outcome<T> failed(error &&why) {
#ifdef PALIGEMMA_NO_EXCEPTIONS
    return outcome<T>(std::move(why));
#else
    throw std::move(why);
#endif
}

/** An error that this header sees before the C library is asked. */
template <class T>
outcome<T> refused(const std::string &message) {
    return failed<T>(error(PG_ERROR_ARGUMENT, message));
}

template <class T>
constexpr bool fits_dtype(int32_t dtype) {
    if (std::is_same_v<T, float>) return dtype == PG_DTYPE_F32;
    if (std::is_same_v<T, int64_t>) return dtype == PG_DTYPE_I64;
    return std::is_same_v<T, uint16_t> && (dtype == PG_DTYPE_BF16 || dtype == PG_DTYPE_F16);
}

template <class To, class From>
To clamped(From n) {
    constexpr auto most = static_cast<From>(std::numeric_limits<To>::max());
    return static_cast<To>(n < most ? n : most);
}

} // namespace detail

/** A view of an array, row-major and dense, as pg_tensor: dtype, n_dims and shape are its fields. One that a getter
 * gave is valid as long as the handle that it was asked of. */
struct tensor : pg_tensor {
    tensor() noexcept : pg_tensor() { pg_tensor_init(this, sizeof(pg_tensor)); } ///< empty
    /** A view of the caller's numbers, float or int64_t, for input_arrays and features::from_tensor(): shape has 1 to 4
     * sizes whose product is the size of `numbers`. Errors: PG_ERROR_ARGUMENT. */
    template <class T>
    static outcome<tensor> of(span<const T> numbers, std::initializer_list<int64_t> shape) {
        static_assert(std::is_same_v<T, float> || std::is_same_v<T, int64_t>, "float or int64_t");
        tensor made;
        made.dtype = std::is_same_v<T, float> ? PG_DTYPE_F32 : PG_DTYPE_I64;
        made.data = numbers.data();
        if (shape.size() < 1 || shape.size() > 4)
            return detail::refused<tensor>("a tensor: found " + std::to_string(shape.size()) +
                                           " sizes in its shape; expected 1 to 4");
        std::size_t axis = 0;
        for (const int64_t size : shape) made.shape[axis++] = size;
        made.n_dims = static_cast<int32_t>(axis);
        while (axis < 4) made.shape[axis++] = 1;
        // by division, so that no product is too large
        std::size_t left = numbers.size();
        for (const int64_t size : shape) {
            if (size <= 0 || left % static_cast<std::size_t>(size))
                return detail::refused<tensor>("a tensor: found " + std::to_string(numbers.size()) +
                                               " numbers; expected as many as the product of its shape");
            left /= static_cast<std::size_t>(size);
        }
        if (left != 1)
            return detail::refused<tensor>("a tensor: found " + std::to_string(numbers.size()) +
                                           " numbers; expected as many as the product of its shape");
        return made;
    }
    span<const int64_t> dims() const noexcept { return {shape, static_cast<std::size_t>(n_dims)}; } ///< [n_dims] sizes
    /** The numbers in it: the product of its sizes. */
    std::size_t size() const noexcept {
        std::size_t product = n_dims > 0;
        for (const int64_t size : dims()) product *= static_cast<std::size_t>(size);
        return product;
    }
    /** Its numbers: T is float (PG_DTYPE_F32), int64_t (I64), or uint16_t (the bits of BF16 and F16). Errors:
     * PG_ERROR_ARGUMENT (another dtype). */
    template <class T>
    outcome<span<const T>> as() const {
        if (!detail::fits_dtype<T>(dtype))
            return detail::refused<span<const T>>("a tensor: found numbers of PG_DTYPE " + std::to_string(dtype) +
                                                  "; ask for float (1), uint16_t (2, 3) or int64_t (4)");
        return span<const T>(static_cast<const T *>(data), size());
    }
};

/* ---- Hooks: memory, log, progress, cancel ---- */

/** What a callback wants. */
enum class flow : int32_t {
    go_on = 0, ///< more
    stop = 1   ///< progress: the call is PG_ERROR_CANCELLED; others: the row ends, without an error
};

/** A callback: anything that can be called and copied, and returns nothing (which is flow::go_on) or a flow. */
template <class... Arguments>
class callback {
   public:
    callback() = default;                ///< none
    callback(std::nullptr_t) noexcept {} ///< none
    /** Of a lambda, or whatever can be called. */
    template <class F, class = std::enable_if_t<!std::is_same_v<std::decay_t<F>, callback> &&
                                                std::is_invocable_v<std::decay_t<F> &, Arguments...>>>
    callback(F &&f) {
        using given = std::invoke_result_t<std::decay_t<F> &, Arguments...>;
        static_assert(std::is_void_v<given> || std::is_same_v<given, flow>,
                      "a callback returns nothing, or a paligemma::flow");
        if constexpr (std::is_void_v<given>)
            function_ = [f = std::decay_t<F>(std::forward<F>(f))](Arguments... arguments) mutable {
                f(arguments...);
                return flow::go_on;
            };
        else
            function_ = std::forward<F>(f);
    }
    explicit operator bool() const noexcept { return static_cast<bool>(function_); }  ///< true: there is one
    flow operator()(Arguments... arguments) const { return function_(arguments...); } ///< calls it

   private:
    std::function<flow(Arguments...)> function_;
};

/** Receives one line without a line break: PG_LOG_*, the line. It may be called from every thread that calls the
 * library with the handle that has it or one made from that, and lives as long as they do. */
using log_callback = std::function<void(int32_t level, std::string_view message)>;
/** PG_PHASE_*, and how many of the phase's units are done. On the calling thread. */
using progress_callback = callback<int32_t /* phase */, int64_t /* done */, int64_t /* total */>;
/** Row of the result, a piece of its text in whole characters (sizes count), the token that completes it. The text is
 * valid during the call. As pg_text_fn. */
using text_callback = callback<int64_t /* row */, std::string_view /* text */, int64_t /* token */>;
/** Row, its ids so far, and its logits [vocab_size], which may be changed. As pg_logits_fn. */
using logits_callback = callback<int64_t /* row */, span<const int64_t> /* ids */, span<float> /* logits */>;
/** Row, its ids so far, and a bit for each id, all 0: [(vocab_size + 31) / 32], bit (id % 32) of mask[id / 32] set: the
 * id may follow. The last argument is vocab_size. As pg_mask_fn. */
using mask_callback = callback<int64_t /* row */, span<const int64_t> /* ids */, span<uint32_t> /* mask */, int64_t>;
/** Row, the ids of its beams [n_texts, n_ids], and which texts end: ends [n_texts], all 0. As pg_texts_fn. */
using texts_callback = callback<int64_t /* row */, span<const int64_t> /* ids */, span<uint8_t> /* ends */>;

/** The host's allocator. It lives as long as the handle that it was given to and all that is made from that; both
 * functions may be called from every thread that calls the library. */
struct memory_hooks {
    /** Bytes and alignment (a power of two, at most 4096); nullptr: there is no memory. What it throws comes out of the
     * call. */
    std::function<void *(std::size_t size, std::size_t alignment)> alloc;
    /** Releases what alloc gave. What it throws is dropped. */
    std::function<void(void *memory)> free;
};

namespace detail {

/** What handles keep beside the C handle: the hooks that the library may still call. */
struct hooks {
    log_callback log;
    progress_callback progress;
    std::shared_ptr<const memory_hooks> memory;
    std::vector<std::shared_ptr<const hooks>> others;
};
using kept = std::shared_ptr<const hooks>;

inline kept join(const kept &a, const kept &b) {
    if (!b || a == b) return a;
    if (!a) return b;
    auto both = std::make_shared<hooks>();
    both->others = {a, b};
    return both;
}

/** One call of the library: it keeps the hooks of the handles in it, whatever callbacks do to those handles, and what
 * its callbacks threw. Calls inside callbacks have their own. */
class call {
   public:
    explicit call(kept hooks = nullptr) : kept_(std::move(hooks)) {
#ifndef PALIGEMMA_NO_EXCEPTIONS
        outer_ = current();
        current() = this;
#endif
    }
    call(const call &) = delete;
    call &operator=(const call &) = delete;
    ~call() {
#ifndef PALIGEMMA_NO_EXCEPTIONS
        current() = outer_;
#endif
    }
    const kept &hooks() const { return kept_; }
    /** What `make` gives, or the error. */
    template <class Make>
    auto finish(pg_status status, Make make) -> outcome<std::invoke_result_t<Make>> {
        using made = std::invoke_result_t<Make>;
        if (status < 0) {
#ifndef PALIGEMMA_NO_EXCEPTIONS
            // a call that went on after an exception (of an allocator, where less memory did) may fail by something
            // else
            if (thrown_ && (status == PG_ERROR_CANCELLED || status == PG_ERROR_MEMORY)) std::rethrow_exception(thrown_);
#endif
            return failed<made>(error(status, pg_last_error(), pg_last_error_row()));
        }
        if constexpr (std::is_void_v<made>) {
            make();
            return outcome<void>();
        } else {
            return make();
        }
    }
    outcome<void> finish(pg_status status) {
        return finish(status, [] {});
    }

    /** Runs a callback. What it throws goes on into the library, which catches it and ends the call. */
    template <class F>
    static auto guarded(F f) -> decltype(f()) {
#ifdef PALIGEMMA_NO_EXCEPTIONS
        return f();
#else
        try {
            return f();
        } catch (...) {
            if (call *now = current()) now->thrown_ = std::current_exception();
            throw;
        }
#endif
    }

   private:
    kept kept_;
#ifndef PALIGEMMA_NO_EXCEPTIONS
    static call *&current() {
        thread_local call *now = nullptr;
        return now;
    }
    std::exception_ptr thrown_;
    call *outer_;
#endif
};

/* What the C library calls; `user` is the callback. */

inline void on_log(void *user, int32_t level, const char *message) {
    call::guarded([&] { (*static_cast<const log_callback *>(user))(level, message); });
}
inline int32_t on_progress(void *user, int32_t phase, int64_t done, int64_t total) {
    return call::guarded(
        [&] { return static_cast<int32_t>((*static_cast<const progress_callback *>(user))(phase, done, total)); });
}
inline int32_t on_text(void *user, int64_t row, const char *text, std::size_t size, int64_t token) {
    return call::guarded([&] {
        return static_cast<int32_t>((*static_cast<const text_callback *>(user))(row, {text, size}, token));
    });
}
inline int32_t on_logits(void *user, int64_t row, const int64_t *ids, int64_t n_ids, float *logits,
                         int64_t vocab_size) {
    return call::guarded([&] {
        return static_cast<int32_t>((*static_cast<const logits_callback *>(user))(
            row, {ids, static_cast<std::size_t>(n_ids)}, {logits, static_cast<std::size_t>(vocab_size)}));
    });
}
inline int32_t on_mask(void *user, int64_t row, const int64_t *ids, int64_t n_ids, uint32_t *mask, int64_t vocab_size) {
    return call::guarded([&] {
        return static_cast<int32_t>((*static_cast<const mask_callback *>(user))(
            row, {ids, static_cast<std::size_t>(n_ids)}, {mask, static_cast<std::size_t>((vocab_size + 31) / 32)},
            vocab_size));
    });
}
inline int32_t on_texts(void *user, int64_t row, const int64_t *ids, int64_t n_ids, int64_t n_texts, uint8_t *ends) {
    return call::guarded([&] {
        return static_cast<int32_t>((*static_cast<const texts_callback *>(user))(
            row, {ids, static_cast<std::size_t>(n_ids * n_texts)}, {ends, static_cast<std::size_t>(n_texts)}));
    });
}
inline void *on_alloc(void *user, std::size_t size, std::size_t alignment) {
    return call::guarded([&] { return static_cast<const memory_hooks *>(user)->alloc(size, alignment); });
}
inline void on_free(void *user, void *memory) { static_cast<const memory_hooks *>(user)->free(memory); }

/** A callback as C's `user`. */
template <class F>
void *user_of(const F &f) {
    return const_cast<F *>(&f); // the functions above make it const again
}

template <class Options, class Callback>
void set_progress(Options &c, const Callback &f) {
    if (!f) return;
    c.progress = on_progress;
    c.progress_user = user_of(f);
}

/** The C allocator of memory_hooks, and NULL of none. */
class c_allocator {
   public:
    explicit c_allocator(const memory_hooks *memory) : c_() {
        c_.struct_size = sizeof c_;
        c_.user = memory ? user_of(*memory) : nullptr;
        c_.alloc = on_alloc;
        c_.free = on_free;
    }
    template <class Options>
    void set(Options &c) const {
        if (c_.user) c.allocator = &c_;
    }

   private:
    pg_allocator c_;
};

/** The hooks that a handle has to keep of its options; empty where there are none. */
inline kept keep(const log_callback &log, const std::shared_ptr<const memory_hooks> &memory,
                 const progress_callback &progress = {}) {
    if (!log && !memory && !progress) return nullptr;
    auto made = std::make_shared<hooks>();
    made->log = log;
    made->progress = progress;
    made->memory = memory;
    return made;
}

template <class Options>
void set_log(Options &c, const kept &hooks) {
    if (!hooks || !hooks->log) return;
    c.log = on_log;
    c.log_user = user_of(hooks->log);
}

inline const memory_hooks *memory_of(const kept &hooks) { return hooks ? hooks->memory.get() : nullptr; }

/** A C handle that is closed at the end. */
template <class C, void (*close)(C **)>
class handle {
   public:
    handle() = default; ///< empty
    handle(handle &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)), kept_(std::move(other.kept_)) {}
    handle &operator=(handle &&other) noexcept {
        if (this != &other) {
            reset();
            handle_ = std::exchange(other.handle_, nullptr);
            kept_ = std::move(other.kept_);
        }
        return *this;
    }
    ~handle() { reset(); }
    C *get() noexcept { return handle_; }                                  ///< the C handle; this one keeps it
    const C *get() const noexcept { return handle_; }                      ///< the C handle; this one keeps it
    explicit operator bool() const noexcept { return handle_ != nullptr; } ///< false: empty
    /** Drops it, and is empty then. */
    void reset() noexcept {
        const kept hooks = std::move(kept_); // its memory is released by them
        C *closing = std::exchange(handle_, nullptr);
        close(&closing);
    }

   protected:
    handle(C *made, kept hooks) noexcept : handle_(made), kept_(std::move(hooks)) {}
    const kept &hooks() const noexcept { return kept_; }

   private:
    friend struct access;
    C *handle_ = nullptr;
    kept kept_;
};

/** Hooks of any handle. */
struct access {
    template <class Handle>
    static const kept &hooks(const Handle &handle) noexcept {
        return handle.kept_;
    }
};

/** The text that a C function copies: asked for its size, then for the text. */
template <class Get>
outcome<std::string> copied_text(const kept &hooks, Get get) {
    call c(hooks);
    std::size_t needed = 0;
    std::string text;
    pg_status status = get(nullptr, std::size_t(0), &needed);
    if (status >= 0 && needed > 0) {
        text.resize(needed); // the closing NUL has room, too
        status = get(&text[0], needed, &needed);
        if (status >= 0) text.resize(needed - 1);
    }
    return c.finish(status, [&] { return std::move(text); });
}

/** A struct of the C header that a call fills in. */
template <class Info>
Info sized() {
    Info info = Info();
    info.struct_size = sizeof info;
    return info;
}

} // namespace detail

/** A cancel flag: any thread may set it, and a call that was given it (`options.cancel = flag.get()`) then ends with
 * PG_ERROR_CANCELLED within milliseconds to tens of milliseconds. Make one for each request. */
class cancel_flag : public detail::handle<pg_cancel, pg_cancel_close> {
   public:
    cancel_flag() = default; ///< empty: cancels nothing
    /** A flag that is not set: pg_cancel_create(). */
    static outcome<cancel_flag> create() {
        detail::call call;
        pg_cancel *made = nullptr;
        return call.finish(pg_cancel_create(&made), [&] { return cancel_flag(made); });
    }
    void request() noexcept { pg_cancel_request(get()); } ///< sets it; from any thread
    void clear() noexcept { pg_cancel_clear(get()); }     ///< so that it can be used again

   private:
    explicit cancel_flag(pg_cancel *made) noexcept : handle(made, nullptr) {}
};

/* ---- Options ---- */

/** A borrowed image, as pg_image: path, bytes or pixels must stay until the call that reads the image returns. */
struct image : pg_image {
    /** A PNG or JPEG file, read when the image is used. */
    static outcome<image> from_path(const char *path) {
        detail::call call;
        image made;
        return call.finish(pg_image_from_path(&made, sizeof(pg_image), path), [&] { return made; });
    }
    static outcome<image> from_path(const std::string &path) { return from_path(path.c_str()); } ///< the same
    static outcome<image> from_path(std::string &&path) = delete; ///< it would end before the image is read
    /** The bytes of a PNG or JPEG file. */
    static outcome<image> from_bytes(span<const uint8_t> bytes) {
        detail::call call;
        image made;
        return call.finish(pg_image_from_bytes(&made, sizeof(pg_image), bytes.data(), bytes.size()),
                           [&] { return made; });
    }
    /** A camera or texture buffer: format PG_IMAGE_*, size in pixels, `pixels` from the first byte of the buffer that
     * is there, the top row first, all planes, stride in bytes (0: dense). Rows that leave the buffer are
     * PG_ERROR_ARGUMENT when the image is used. A buffer whose top row comes last: from_planes(). */
    static outcome<image> from_pixels(int32_t format, int32_t width, int32_t height, span<const uint8_t> pixels,
                                      int64_t stride = 0) {
        detail::call call;
        image made;
        const pg_status status =
            pg_image_from_pixels(&made, sizeof(pg_image), format, width, height, pixels.data(), stride);
        made.n_bytes = pixels.size();
        return call.finish(status, [&] { return made; });
    }
    /** The same where each plane has its own address and stride, as `format` has planes; strides {}: all dense. Fewer
     * than those are PG_ERROR_ARGUMENT. */
    static outcome<image> from_planes(int32_t format, int32_t width, int32_t height, span<const void *const> planes,
                                      span<const int64_t> strides = {}) {
        detail::call call;
        image made;
        const void *all[4] = {};
        int64_t steps[4] = {};
        for (size_t i = 0; i < 4 && i < planes.size(); i++) all[i] = planes[i];
        for (size_t i = 0; i < 4 && i < strides.size(); i++) steps[i] = strides[i];
        return call.finish(pg_image_from_planes(&made, sizeof(pg_image), format, width, height, all, steps),
                           [&] { return made; });
    }
    /** What a model of `model_width` x `model_height` pixels sees of it, for answer_options.window, in pixels of the
     * whole image, whose size is 0 x 0 for raw pixels: they have it. Errors: pg_image_get_window(). */
    outcome<pg_window> window(int32_t model_width, int32_t model_height, int32_t image_width = 0,
                              int32_t image_height = 0) const {
        detail::call call;
        auto found = detail::sized<pg_window>();
        return call.finish(pg_image_get_window(this, image_width, image_height, model_width, model_height, &found),
                           [&] { return found; });
    }
    image() noexcept : pg_image() {} ///< of nothing: PG_ERROR_ARGUMENT where it is used
};
static_assert(sizeof(image) == sizeof(pg_image), "a span of images is an array of C images");

/** Options of model::open(). */
struct model_options : pg_model_options {
    model_options() noexcept : pg_model_options() { pg_model_options_init(this, sizeof(pg_model_options)); }
    log_callback log;                           ///< lives as long as the model and all that is made from it
    progress_callback progress;                 ///< of opening: PG_PHASE_VERIFY, LOAD, CONVERT
    std::shared_ptr<const memory_hooks> memory; ///< in place of `allocator`; kept likewise
};

/** Options of processor::open(). */
struct processor_options : pg_processor_options {
    processor_options() noexcept : pg_processor_options() {
        pg_processor_options_init(this, sizeof(pg_processor_options));
    }
    log_callback log;                           ///< lives as long as the processor and all that is made from it
    std::shared_ptr<const memory_hooks> memory; ///< in place of `allocator`; kept likewise
};

/** Options of processor::encode() and encode_batch(). */
struct encode_options : pg_encode_options {
    encode_options() noexcept : pg_encode_options() { pg_encode_options_init(this, sizeof(pg_encode_options)); }
};

/** How the next token is chosen. The arrays are the caller's and stay until the call returns. */
struct sampling_options : pg_sampling_options {
    sampling_options() noexcept : pg_sampling_options() { pg_sampling_options_init(this, sizeof(pg_sampling_options)); }
    mask_callback on_mask;     ///< which ids may follow; by default all
    logits_callback on_logits; ///< sees and changes logits
    void set_eos_ids(span<const int64_t> ids) noexcept { set(ids, eos_ids, n_eos_ids); } ///< ids that end a row
    /** One of them is the last of max_new_tokens. */
    void set_forced_eos_ids(span<const int64_t> ids) noexcept { set(ids, forced_eos_ids, n_forced_eos_ids); }
    void set_suppressed_ids(span<const int64_t> ids) noexcept { set(ids, suppressed_ids, n_suppressed_ids); } ///< never
    /** Not the first new token. */
    void set_begin_suppressed_ids(span<const int64_t> ids) noexcept {
        set(ids, begin_suppressed_ids, n_begin_suppressed_ids);
    }
    /** Words that do not come: the ids of all, and how many each has, >= 1; their sum is the number of ids. */
    void set_bad_words(span<const int64_t> ids, span<const int64_t> sizes) noexcept {
        bad_word_ids = ids.data();
        set(sizes, bad_word_sizes, n_bad_words);
    }
    /** Sequences and what is added to the logit of the last id of each: sizes and biases [n_biases]. */
    void set_biases(span<const int64_t> ids, span<const int64_t> sizes, span<const double> added) noexcept {
        bias_ids = ids.data();
        biases = added.data();
        set(sizes, bias_sizes, n_biases);
    }

    /** The C struct, whose pointers lead into this one. */
    pg_sampling_options c_options() const noexcept {
        pg_sampling_options c = *this;
        if (on_mask) {
            c.on_mask = detail::on_mask;
            c.on_mask_user = detail::user_of(on_mask);
        }
        if (on_logits) {
            c.on_logits = detail::on_logits;
            c.on_logits_user = detail::user_of(on_logits);
        }
        return c;
    }

   private:
    template <class T>
    static void set(span<const T> from, const T *&array, int64_t &n) noexcept {
        array = from.data();
        n = static_cast<int64_t>(from.size());
    }
};

/** Settings of beam search. */
struct beam_options : pg_beam_options {
    beam_options() noexcept : pg_beam_options() { pg_beam_options_init(this, sizeof(pg_beam_options)); }
    texts_callback on_texts; ///< which of the texts end

    /** The C struct, whose pointers lead into this one. */
    pg_beam_options c_options() const noexcept {
        pg_beam_options c = *this;
        if (on_texts) {
            c.on_texts = detail::on_texts;
            c.on_texts_user = detail::user_of(on_texts);
        }
        return c;
    }
};

/** Options of generate(). */
struct generate_options : pg_generate_options {
    generate_options() noexcept : pg_generate_options() { pg_generate_options_init(this, sizeof(pg_generate_options)); }
    text_callback on_text;                      ///< each piece of the text as it comes
    progress_callback progress;                 ///< PG_PHASE_VISION, PREFILL, DECODE
    const sampling_options *sampling = nullptr; ///< the caller's; nullptr: as generation_config.json says
    const beam_options *beams = nullptr;        ///< likewise
    /** A row ends with the token that completes one of them. */
    void set_stop_strings(span<const char *const> texts) noexcept {
        stop_strings = texts.data();
        n_stop_strings = detail::clamped<int32_t>(texts.size());
    }
};

/** Options of score() and score_ids(). */
struct score_options : pg_score_options {
    score_options() noexcept : pg_score_options() { pg_score_options_init(this, sizeof(pg_score_options)); }
    progress_callback progress; ///< PG_PHASE_VISION, PREFILL, DECODE
};

/** Options of forward(). */
struct forward_options : pg_forward_options {
    forward_options() noexcept : pg_forward_options() { pg_forward_options_init(this, sizeof(pg_forward_options)); }
    progress_callback progress; ///< PG_PHASE_VISION, PREFILL
};

/** Options of features::create() and calibration::add(). */
struct run_options : pg_run_options {
    run_options() noexcept : pg_run_options() { pg_run_options_init(this, sizeof(pg_run_options)); }
    progress_callback progress; ///< PG_PHASE_VISION
};

/** Options of session::create(). */
struct session_options : pg_session_options {
    session_options() noexcept : pg_session_options() { pg_session_options_init(this, sizeof(pg_session_options)); }
    progress_callback progress; ///< lives as long as the session: PG_PHASE_VISION, PREFILL, DECODE
};

/** Options of answer::create() and its sisters. width and height have no default: pixels of the image. */
struct answer_options : pg_answer_options {
    answer_options() noexcept : pg_answer_options() { pg_answer_options_init(this, sizeof(pg_answer_options)); }
    /** Of an image of this size: "image_sizes" of inputs::get() has it, height first. */
    answer_options(int32_t image_width, int32_t image_height) noexcept : answer_options() {
        width = image_width;
        height = image_height;
    }
    std::shared_ptr<const memory_hooks> memory; ///< in place of `allocator`; kept with the answer
};

/** Options of mask_decoder::open(). */
struct mask_decoder_options : pg_mask_decoder_options {
    mask_decoder_options() noexcept : pg_mask_decoder_options() {
        pg_mask_decoder_options_init(this, sizeof(pg_mask_decoder_options));
    }
    std::shared_ptr<const memory_hooks> memory; ///< in place of `allocator`; kept with the decoder
};

/** Options of adapter::open(). */
struct adapter_options : pg_adapter_options {
    adapter_options() noexcept : pg_adapter_options() { pg_adapter_options_init(this, sizeof(pg_adapter_options)); }
    progress_callback progress; ///< PG_PHASE_LOAD
};

/** Options of trainer::create() and resume(). */
struct trainer_options : pg_trainer_options {
    trainer_options() noexcept : pg_trainer_options() { pg_trainer_options_init(this, sizeof(pg_trainer_options)); }
    progress_callback progress; ///< lives as long as the trainer: PG_PHASE_TRAIN
};

/** Options of convert(). */
struct convert_options : pg_convert_options {
    convert_options() noexcept : pg_convert_options() { pg_convert_options_init(this, sizeof(pg_convert_options)); }
    log_callback log;                           ///< of the call
    progress_callback progress;                 ///< PG_PHASE_LOAD, CONVERT
    std::shared_ptr<const memory_hooks> memory; ///< in place of `allocator`
    /** Folders or ids of adapters that are merged into the weights, and the weight of each; none: all 1. */
    void set_adapters(span<const char *const> folders, span<const float> factors = {}) noexcept {
        adapters = folders.data();
        adapter_weights = factors.data();
        n_adapters = detail::clamped<int32_t>(folders.size());
    }
};

/** Rows for processor::encode_batch(), as pg_batch. The arrays are the caller's and stay until the call returns. */
struct batch : pg_batch {
    batch() noexcept : pg_batch() { pg_batch_init(this, sizeof(pg_batch)); }
    /** [rows] prompts; sizes [rows] in bytes: a byte 0 counts; without them each ends at its NUL. */
    void set_prompts(span<const char *const> texts, span<const uint64_t> sizes = {}) noexcept {
        prompts = texts.data();
        prompt_sizes = sizes.data();
        n_prompts = detail::clamped<int32_t>(texts.size());
    }
    /** [rows] answers to learn; sizes as above. */
    void set_suffixes(span<const char *const> texts, span<const uint64_t> sizes = {}) noexcept {
        suffixes = texts.data();
        suffix_sizes = sizes.data();
        n_suffixes = detail::clamped<int32_t>(texts.size());
    }
    /** The first row's images first. counts [rows]: images of each row; none: one each. Counts without images: image
     * tokens, and no pixels. */
    void set_images(span<const image> all, span<const int32_t> counts = {}) noexcept {
        images = all.data();
        image_counts = counts.data();
        n_images = detail::clamped<int32_t>(all.size());
        n_image_counts = detail::clamped<int32_t>(counts.size());
    }
};

/** The caller's own arrays for inputs::create(): fields are addresses of tensors, as `arrays.input_ids = &ids`. */
struct input_arrays : pg_input_arrays {
    input_arrays() noexcept : pg_input_arrays() { pg_input_arrays_init(this, sizeof(pg_input_arrays)); }
    std::shared_ptr<const memory_hooks> memory; ///< in place of `allocator`; kept with the inputs
};

/* ---- Model, processor, inputs ---- */

class adapter;
class model;

/** An adapter and its weight, for model::adapt(). */
struct weighted_adapter {
    const paligemma::adapter &adapter; ///< the model keeps it
    float weight = 1;                  ///< finite
};

/** The weights of a checkpoint; immutable, for any number of threads. */
class model : public detail::handle<pg_model, pg_model_close> {
   public:
    model() = default; ///< empty
    /** Opens a checkpoint folder, or a model id of the local Hugging Face cache. Weights are mapped from the files,
     * which must not change meanwhile. Errors: pg_model_open(). */
    static outcome<model> open(zstring folder, const model_options &options = {}) {
        detail::call call(detail::keep(options.log, options.memory));
        const detail::c_allocator memory(options.memory.get());
        pg_model_options c = options;
        memory.set(c);
        detail::set_log(c, call.hooks());
        detail::set_progress(c, options.progress);
        pg_model *made = nullptr;
        return call.finish(pg_model_open(folder.c_str(), &c, &made), [&] { return model(made, call.hooks()); });
    }
    /** What it is: pg_model_get_info(). */
    outcome<pg_model_info> info() const {
        detail::call call(hooks());
        auto info = detail::sized<pg_model_info>();
        return call.finish(pg_model_get_info(get(), &info), [&] { return info; });
    }
    /** A field of the HF config as JSON text, by its key; "": the whole. Errors: PG_ERROR_NOT_FOUND (no such key). */
    outcome<std::string> config(zstring key = "") const {
        return detail::copied_text(hooks(), [&](char *text, std::size_t capacity, std::size_t *needed) {
            return pg_model_get_config(get(), key.c_str(), text, capacity, needed);
        });
    }
    /** The same field as an integer. Errors: also PG_ERROR_ARGUMENT (another type). */
    outcome<int64_t> config_int(zstring key) const {
        detail::call call(hooks());
        int64_t value = 0;
        return call.finish(pg_model_get_config_int(get(), key.c_str(), &value), [&] { return value; });
    }
    /** The same field as a number. Errors: also PG_ERROR_ARGUMENT (another type). */
    outcome<double> config_float(zstring key) const {
        detail::call call(hooks());
        double value = 0;
        return call.finish(pg_model_get_config_float(get(), key.c_str(), &value), [&] { return value; });
    }
    /** The settings of generation_config.json. Their arrays are valid as long as the model. */
    outcome<sampling_options> sampling() const & {
        detail::call call(hooks());
        sampling_options options;
        return call.finish(pg_model_get_sampling(get(), &options), [&] { return options; });
    }
    outcome<sampling_options> sampling() const && = delete; ///< the arrays would be gone
    /** Bytes that a session would take: n_tokens of prompt and answer (0: one image, 64 + 128), n_threads (0: the
     * CPUs), n_images whose features one call computes (0: one). Errors: pg_model_get_memory(). */
    outcome<pg_memory> memory(int64_t n_tokens = 0, int32_t n_threads = 0, int64_t n_images = 0) const {
        detail::call call(hooks());
        auto memory = detail::sized<pg_memory>();
        memory.n_tokens = n_tokens;
        memory.n_threads = n_threads;
        memory.n_images = n_images;
        return call.finish(pg_model_get_memory(get(), &memory), [&] { return memory; });
    }
    /** What the decoder is fed for ids: out [ids, hidden_size], the caller's. Errors: PG_ERROR_ARGUMENT (an id outside
     * the vocabulary, an `out` of another size). */
    outcome<void> embed(span<const int64_t> ids, span<float> out) const {
        detail::call call(hooks());
        int64_t hidden = 0;
        const pg_status status = pg_model_get_config_int(get(), "text_config.hidden_size", &hidden);
        if (status < 0) return call.finish(status);
        if (out.size() / static_cast<std::size_t>(hidden) != ids.size() ||
            out.size() % static_cast<std::size_t>(hidden))
            return detail::refused<void>("embed: found room for " + std::to_string(out.size()) + " numbers; expected " +
                                         std::to_string(ids.size()) + " ids x " + std::to_string(hidden));
        return call.finish(pg_model_embed(get(), ids.data(), ids.size(), out.data()));
    }
    /** A model with adapters added, which shares the weights of this one and keeps both. Errors: pg_model_adapt(). */
    outcome<model> adapt(span<const weighted_adapter> adapters) const;
    /** The same: `base.adapt({{receipts, 0.7f}, {handwriting, 0.5f}})`. */
    outcome<model> adapt(std::initializer_list<weighted_adapter> adapters) const {
        return adapt(span<const weighted_adapter>(adapters.begin(), adapters.size()));
    }

   private:
    model(pg_model *made, detail::kept hooks) noexcept : handle(made, std::move(hooks)) {}
};

/** A LoRA adapter of a model; immutable. */
class adapter : public detail::handle<pg_adapter, pg_adapter_close> {
   public:
    adapter() = default; ///< empty
    /** Opens a folder that PEFT or trainer::save() wrote, or an id of the local cache. It keeps the model. Errors:
     * pg_adapter_open(). */
    static outcome<adapter> open(const model &base, zstring folder, const adapter_options &options = {}) {
        detail::call call(detail::access::hooks(base));
        pg_adapter_options c = options;
        detail::set_progress(c, options.progress);
        pg_adapter *made = nullptr;
        return call.finish(pg_adapter_open(base.get(), folder.c_str(), &c, &made),
                           [&] { return adapter(made, call.hooks()); });
    }
    /** What it is; `base` in it is valid as long as the adapter. */
    outcome<pg_adapter_info> info() const & {
        detail::call call(hooks());
        auto info = detail::sized<pg_adapter_info>();
        return call.finish(pg_adapter_get_info(get(), &info), [&] { return info; });
    }
    outcome<pg_adapter_info> info() const && = delete; ///< its name would be gone
    /** The model that an adapter's folder asks for, for model::open(). Errors: pg_adapter_find_base(). */
    static outcome<std::string> find_base(zstring folder) {
        return detail::copied_text(nullptr, [&](char *text, std::size_t capacity, std::size_t *needed) {
            return pg_adapter_find_base(folder.c_str(), text, capacity, needed);
        });
    }

   private:
    adapter(pg_adapter *made, detail::kept hooks) noexcept : handle(made, std::move(hooks)) {}
};

inline outcome<model> model::adapt(span<const weighted_adapter> adapters) const {
    detail::kept all = hooks();
    std::vector<const pg_adapter *> handles;
    std::vector<float> weights;
    for (const weighted_adapter &one : adapters) {
        handles.push_back(one.adapter.get());
        weights.push_back(one.weight);
        all = detail::join(all, detail::access::hooks(one.adapter));
    }
    detail::call call(std::move(all));
    pg_model *made = nullptr;
    return call.finish(pg_model_adapt(get(), handles.data(), weights.data(), handles.size(), &made),
                       [&] { return model(made, call.hooks()); });
}

/** What a model is fed: ids, masks, labels, pixels. Read-only, for any number of threads. */
class inputs : public detail::handle<pg_inputs, pg_inputs_close> {
   public:
    inputs() = default; ///< empty
    /** Of the caller's arrays, all copied. Errors: pg_inputs_create(). */
    static outcome<inputs> create(const input_arrays &arrays) {
        detail::call call(detail::keep({}, arrays.memory));
        const detail::c_allocator memory(arrays.memory.get());
        pg_input_arrays c = arrays;
        memory.set(c);
        pg_inputs *made = nullptr;
        return call.finish(pg_inputs_create(&c, &made), [&] { return inputs(made, call.hooks()); });
    }
    /** A tensor by its HF name, B rows of T tokens: "input_ids", "attention_mask", "token_type_ids", "labels",
     * "position_ids" i64 [B, T]; "pixel_values" f32 [n_images, 3, height, width]; "image_counts" i64 [B]; "image_sizes"
     * i64 [n_images, 2]; "inputs_embeds" f32 [B, T, hidden]. Errors: PG_ERROR_NOT_FOUND. */
    outcome<tensor> get(zstring name) const & {
        detail::call call(hooks());
        tensor found;
        return call.finish(pg_inputs_get_tensor(get(), name.c_str(), &found), [&] { return found; });
    }
    outcome<tensor> get(zstring name) const && = delete; ///< the tensor would be gone
    using handle::get;
    /** Where row `row`, 0 for the first, lies, and what happened to it. Errors: PG_ERROR_ARGUMENT (no such row). */
    outcome<pg_row_info> row_info(int64_t row) const {
        detail::call call(hooks());
        auto info = detail::sized<pg_row_info>();
        return call.finish(pg_inputs_get_row_info(get(), row, &info), [&] { return info; });
    }

   private:
    friend class processor;
    inputs(pg_inputs *made, detail::kept hooks) noexcept : handle(made, std::move(hooks)) {}
};

/** Tokenizer and image processing of a checkpoint; immutable, for any number of threads. */
class processor : public detail::handle<pg_processor, pg_processor_close> {
   public:
    processor() = default; ///< empty
    /** Opens those of a checkpoint folder or model id; NULL with PG_PROCESSOR_IMAGES_ONLY: image settings of 224 x 224.
     * Errors: pg_processor_open(). */
    static outcome<processor> open(zstring folder, const processor_options &options = {}) {
        detail::call call(detail::keep(options.log, options.memory));
        const detail::c_allocator memory(options.memory.get());
        pg_processor_options c = options;
        memory.set(c);
        detail::set_log(c, call.hooks());
        pg_processor *made = nullptr;
        return call.finish(pg_processor_open(folder.c_str(), &c, &made), [&] { return processor(made, call.hooks()); });
    }
    /** What it does: pg_processor_get_info(). */
    outcome<pg_processor_info> info() const {
        detail::call call(hooks());
        auto info = detail::sized<pg_processor_info>();
        return call.finish(pg_processor_get_info(get(), &info), [&] { return info; });
    }
    /** How an image becomes pixel_values; changed, it serves encode_options.image_settings. */
    outcome<pg_image_settings> image_settings() const {
        detail::call call(hooks());
        auto settings = detail::sized<pg_image_settings>();
        return call.finish(pg_processor_get_image_settings(get(), &settings), [&] { return settings; });
    }
    /** The inputs of one image and prompt: one row. Errors: pg_processor_encode(). */
    outcome<inputs> encode(const image &image, zstring prompt, const encode_options &options = {}) const {
        return encode(&image, prompt, options);
    }
    /** The same with image tokens and no pixels: the call that takes the inputs needs features. */
    outcome<inputs> encode(zstring prompt, const encode_options &options = {}) const {
        return encode(static_cast<const image *>(nullptr), prompt, options);
    }
    /** Rows with prompts, images and answers to learn, padded. Errors: pg_processor_encode_batch(). */
    outcome<inputs> encode_batch(const batch &rows, const encode_options &options = {}) const {
        detail::call call(hooks());
        pg_inputs *made = nullptr;
        return call.finish(pg_processor_encode_batch(get(), &rows, &options, &made),
                           [&] { return inputs(made, call.hooks()); });
    }
    /** The ids of a text alone. flags: PG_ENCODE_LITERAL or 0. Errors: pg_processor_tokenize(). */
    outcome<std::vector<int64_t>> tokenize(zstring text, uint32_t flags = 0) const {
        detail::call call(hooks());
        std::vector<int64_t> ids(text.c_str() ? std::strlen(text.c_str()) + 1 : 0); // more are rare
        std::size_t n = 0;
        pg_status status = pg_processor_tokenize(get(), text.c_str(), flags, ids.data(), ids.size(), &n);
        if (status >= 0 && n > ids.size()) {
            ids.resize(n);
            status = pg_processor_tokenize(get(), text.c_str(), flags, ids.data(), ids.size(), &n);
        }
        ids.resize(status < 0 ? 0 : n);
        return call.finish(status, [&] { return std::move(ids); });
    }
    /** The text of ids. flags: PG_DECODE_SKIP_SPECIAL or 0. Errors: pg_processor_decode(). */
    outcome<std::string> decode(span<const int64_t> ids, uint32_t flags = 0) const {
        return detail::copied_text(hooks(), [&](char *text, std::size_t capacity, std::size_t *needed) {
            return pg_processor_decode(get(), ids.data(), ids.size(), flags, text, capacity, needed);
        });
    }
    /** The piece of an id as the vocabulary writes it, valid as long as the processor. Errors: PG_ERROR_ARGUMENT. */
    outcome<std::string_view> piece(int64_t id) const & {
        detail::call call(hooks());
        const char *piece = "";
        return call.finish(pg_processor_get_piece(get(), id, &piece), [&] { return std::string_view(piece); });
    }
    outcome<std::string_view> piece(int64_t id) const && = delete; ///< the text would be gone
    /** The id of a piece, such as "<loc0000>". Errors: PG_ERROR_NOT_FOUND. */
    outcome<int64_t> token_id(zstring piece) const {
        detail::call call(hooks());
        int64_t id = 0;
        return call.finish(pg_processor_get_token_id(get(), piece.c_str(), &id), [&] { return id; });
    }
    /** PG_TOKEN_* bits of an id. Errors: PG_ERROR_ARGUMENT (no such id). */
    outcome<uint32_t> token_flags(int64_t id) const {
        detail::call call(hooks());
        uint32_t flags = 0;
        return call.finish(pg_processor_get_token_flags(get(), id, &flags), [&] { return flags; });
    }

   private:
    outcome<inputs> encode(const image *image, zstring prompt, const encode_options &options) const {
        detail::call call(hooks());
        pg_inputs *made = nullptr;
        return call.finish(pg_processor_encode(get(), image, prompt.c_str(), &options, &made),
                           [&] { return inputs(made, call.hooks()); });
    }
    processor(pg_processor *made, detail::kept hooks) noexcept : handle(made, std::move(hooks)) {}
};

/** What vision encoder and projector make of images. Read-only, for any number of threads. */
class features : public detail::handle<pg_features, pg_features_close> {
   public:
    features() = default; ///< empty
    /** Runs the encoder on the pixels of the inputs. Errors: pg_features_create(). */
    static outcome<features> create(const model &model, const inputs &inputs, const run_options &options = {}) {
        detail::call call(join(model, inputs));
        pg_run_options c = options;
        detail::set_progress(c, options.progress);
        pg_features *made = nullptr;
        return call.finish(pg_features_create(model.get(), inputs.get(), &c, &made),
                           [&] { return features(made, call.hooks()); });
    }
    /** Of numbers that were kept or changed, f32 [n_images, n_image_tokens, hidden_size], copied. */
    static outcome<features> from_tensor(const model &model, const tensor &values) {
        return make(model, [&](pg_features **out) { return pg_features_from_tensor(model.get(), &values, out); });
    }
    /** Of a file that save() wrote. Errors: PG_ERROR_ARGUMENT (of another model), those of pg_features_load(). */
    static outcome<features> load(const model &model, zstring path) {
        return make(model, [&](pg_features **out) { return pg_features_load(model.get(), path.c_str(), out); });
    }
    /** Of what to_bytes() gave, copied. Errors: as load(). */
    static outcome<features> from_bytes(const model &model, span<const uint8_t> bytes) {
        return make(model, [&](pg_features **out) {
            return pg_features_from_bytes(model.get(), bytes.data(), bytes.size(), out);
        });
    }
    /** f32 [n_images, n_image_tokens, hidden_size], valid as long as the features. */
    outcome<tensor> values() const & {
        detail::call call(hooks());
        tensor found;
        return call.finish(pg_features_get_tensor(get(), &found), [&] { return found; });
    }
    outcome<tensor> values() const && = delete; ///< the tensor would be gone
    /** Writes them to a file, for other processes and later. Errors: pg_features_save(). */
    outcome<void> save(zstring path) const {
        detail::call call(hooks());
        return call.finish(pg_features_save(get(), path.c_str()));
    }
    /** The same bytes into the caller's memory: how many there are; fewer fit when `bytes` is smaller. */
    outcome<std::size_t> to_bytes(span<uint8_t> bytes) const {
        detail::call call(hooks());
        std::size_t needed = 0;
        return call.finish(pg_features_to_bytes(get(), bytes.data(), bytes.size(), &needed), [&] { return needed; });
    }
    /** The same bytes. */
    outcome<std::vector<uint8_t>> to_bytes() const {
        detail::call call(hooks());
        std::size_t needed = 0;
        std::vector<uint8_t> bytes;
        pg_status status = pg_features_to_bytes(get(), nullptr, 0, &needed);
        if (status >= 0) {
            bytes.resize(needed);
            status = pg_features_to_bytes(get(), bytes.data(), bytes.size(), &needed);
        }
        return call.finish(status, [&] { return std::move(bytes); });
    }

   private:
    static detail::kept join(const model &model, const inputs &inputs) {
        return detail::join(detail::access::hooks(model), detail::access::hooks(inputs));
    }
    template <class Make>
    static outcome<features> make(const model &model, Make create) {
        detail::call call(detail::access::hooks(model));
        pg_features *made = nullptr;
        return call.finish(create(&made), [&] { return features(made, call.hooks()); });
    }
    features(pg_features *made, detail::kept hooks) noexcept : handle(made, std::move(hooks)) {}
};

/* ---- Generate ---- */

/** What generate() made of each row. Read-only, for any number of threads. */
class result : public detail::handle<pg_result, pg_result_close> {
   public:
    result() = default;                                                     ///< empty: no rows
    int64_t n_rows() const noexcept { return pg_result_get_n_rows(get()); } ///< rows of the result
    /** The text of a row, without special tokens, up to its first byte 0, valid as long as the result; "" for a row
     * that is not there. */
    std::string_view text(int64_t row) const &noexcept { return pg_result_get_text(get(), row); }
    std::string_view text(int64_t row) const && = delete; ///< it would be gone
    /** i64 [n], the final eos included; valid as long as the result. Errors: PG_ERROR_ARGUMENT (no such row). */
    outcome<tensor> ids(int64_t row) const & {
        detail::call call(hooks());
        tensor found;
        return call.finish(pg_result_get_ids(get(), row, &found), [&] { return found; });
    }
    outcome<tensor> ids(int64_t row) const && = delete; ///< the tensor would be gone
    /** A tensor of a row that generate_options asked for: "log_probs", "logits", ..., with the shapes that
     * pg_result_get_tensor() names. Errors: PG_ERROR_ARGUMENT (no such row), _NOT_FOUND (not asked for). */
    outcome<tensor> get(int64_t row, zstring name) const & {
        detail::call call(hooks());
        tensor found;
        return call.finish(pg_result_get_tensor(get(), row, name.c_str(), &found), [&] { return found; });
    }
    outcome<tensor> get(int64_t row, zstring name) const && = delete; ///< the tensor would be gone
    using handle::get;
    /** Why a row ended (PG_STOP_*), tokens, seconds. Errors: PG_ERROR_ARGUMENT (no such row). */
    outcome<pg_result_info> info(int64_t row) const {
        detail::call call(hooks());
        auto info = detail::sized<pg_result_info>();
        return call.finish(pg_result_get_info(get(), row, &info), [&] { return info; });
    }

   private:
    friend outcome<result> generate(const model &, const processor &, const inputs &, const generate_options &);
    result(pg_result *made, detail::kept hooks) noexcept : handle(made, std::move(hooks)) {}
};

/** Generates the answers to all rows of the inputs. An empty processor: ids alone, texts stay empty. on_text, the hooks
 * of sampling and of beams, and progress are called on this thread. Errors: pg_generate(). */
inline outcome<result> generate(const model &model, const processor &processor, const inputs &inputs,
                                const generate_options &options = {}) {
    detail::call call(detail::join(detail::join(detail::access::hooks(model), detail::access::hooks(processor)),
                                   detail::access::hooks(inputs)));
    pg_generate_options c = options;
    pg_sampling_options sampling;
    pg_beam_options beams;
    if (options.sampling) {
        sampling = options.sampling->c_options();
        c.sampling = &sampling;
    }
    if (options.beams) {
        beams = options.beams->c_options();
        c.beams = &beams;
    }
    if (options.on_text) {
        c.on_text = detail::on_text;
        c.on_text_user = detail::user_of(options.on_text);
    }
    detail::set_progress(c, options.progress);
    pg_result *made = nullptr;
    return call.finish(pg_generate(model.get(), processor.get(), inputs.get(), &c, &made),
                       [&] { return result(made, call.hooks()); });
}

/* ---- Score ---- */

/** The log-probabilities of answers. Read-only, for any number of threads. */
class scores : public detail::handle<pg_scores, pg_scores_close> {
   public:
    scores() = default;                                                           ///< empty: no answers
    int64_t n_answers() const noexcept { return pg_scores_get_n_answers(get()); } ///< answers that were given
    /** How likely answer `index` is. Errors: PG_ERROR_ARGUMENT (no such answer). */
    outcome<pg_score_info> info(int64_t index) const {
        detail::call call(hooks());
        auto info = detail::sized<pg_score_info>();
        return call.finish(pg_scores_get_info(get(), index, &info), [&] { return info; });
    }
    /** "ids" i64 [n] or "log_probs" f32 [n] of answer `index`, valid as long as the scores. Errors: PG_ERROR_ARGUMENT
     * (no such answer), _NOT_FOUND (no such name). */
    outcome<tensor> get(int64_t index, zstring name) const & {
        detail::call call(hooks());
        tensor found;
        return call.finish(pg_scores_get_tensor(get(), index, name.c_str(), &found), [&] { return found; });
    }
    outcome<tensor> get(int64_t index, zstring name) const && = delete; ///< the tensor would be gone
    using handle::get;

   private:
    friend outcome<scores> score(const model &, const processor &, const inputs &, span<const char *const>,
                                 const score_options &);
    friend outcome<scores> score_ids(const model &, const inputs &, span<const int64_t>, span<const int64_t>,
                                     const score_options &);
    scores(pg_scores *made, detail::kept hooks) noexcept : handle(made, std::move(hooks)) {}
};

/** How likely each of the given answers to the one row of the inputs is. Errors: pg_score(). */
inline outcome<scores> score(const model &model, const processor &processor, const inputs &inputs,
                             span<const char *const> answers, const score_options &options = {}) {
    detail::call call(detail::join(detail::join(detail::access::hooks(model), detail::access::hooks(processor)),
                                   detail::access::hooks(inputs)));
    pg_score_options c = options;
    detail::set_progress(c, options.progress);
    pg_scores *made = nullptr;
    return call.finish(pg_score(model.get(), processor.get(), inputs.get(), answers.data(),
                                static_cast<int64_t>(answers.size()), &c, &made),
                       [&] { return scores(made, call.hooks()); });
}

/** The same of ids: those of all answers, and sizes >= 1, one of each answer, whose sum is the number of ids. Errors:
 * pg_score_ids(), PG_ERROR_ARGUMENT (another sum). */
inline outcome<scores> score_ids(const model &model, const inputs &inputs, span<const int64_t> ids,
                                 span<const int64_t> sizes, const score_options &options = {}) {
    detail::call call(detail::join(detail::access::hooks(model), detail::access::hooks(inputs)));
    int64_t left = static_cast<int64_t>(ids.size());
    for (const int64_t size : sizes) left -= size > left || size < 0 ? left + 1 : size;
    if (left != 0)
        return detail::refused<scores>("score_ids: found " + std::to_string(ids.size()) +
                                       " ids; expected as many as the sum of the sizes");
    pg_score_options c = options;
    detail::set_progress(c, options.progress);
    pg_scores *made = nullptr;
    return call.finish(pg_score_ids(model.get(), inputs.get(), ids.data(), sizes.data(),
                                    static_cast<int64_t>(sizes.size()), &c, &made),
                       [&] { return scores(made, call.hooks()); });
}

/* ---- Answers as data ---- */

/** Turns codes of `<seg>` into masks; immutable, for any number of threads. */
class mask_decoder : public detail::handle<pg_mask_decoder, pg_mask_decoder_close> {
   public:
    mask_decoder() = default; ///< empty
    /** Opens vae-oid.npz, a copy of it, or the folder that has it. Errors: pg_mask_decoder_open(). */
    static outcome<mask_decoder> open(zstring path, const mask_decoder_options &options = {}) {
        detail::call call(detail::keep({}, options.memory));
        const detail::c_allocator memory(options.memory.get());
        pg_mask_decoder_options c = options;
        memory.set(c);
        pg_mask_decoder *made = nullptr;
        return call.finish(pg_mask_decoder_open(path.c_str(), &c, &made),
                           [&] { return mask_decoder(made, call.hooks()); });
    }
    /** What it makes of 16 codes, 0 to 127: f32 [64, 64] into `mask`, about -1 outside and 1 inside. Errors:
     * PG_ERROR_ARGUMENT (a code; other numbers of codes or of floats). */
    outcome<void> decode(span<const int32_t> codes, span<float> mask) const {
        detail::call call(hooks());
        if (codes.size() != 16 || mask.size() != 64 * 64)
            return detail::refused<void>("decode: found " + std::to_string(codes.size()) + " codes and room for " +
                                         std::to_string(mask.size()) + " numbers; expected 16 and 4096");
        return call.finish(pg_mask_decoder_decode(get(), codes.data(), mask.data()));
    }

   private:
    mask_decoder(pg_mask_decoder *made, detail::kept hooks) noexcept : handle(made, std::move(hooks)) {}
};

/** The objects that an answer names. Read-only, for any number of threads. */
class answer : public detail::handle<pg_answer, pg_answer_close> {
   public:
    answer() = default; ///< empty: no objects
    /** Those in row `row` of a result. Errors: pg_answer_create(). */
    static outcome<answer> create(const processor &processor, const result &result, int64_t row,
                                  const answer_options &options) {
        return make(detail::join(detail::access::hooks(processor), detail::access::hooks(result)), options,
                    [&](const pg_answer_options *c, pg_answer **out) {
                        return pg_answer_create(processor.get(), result.get(), row, c, out);
                    });
    }
    /** Those in ids. log_probs [ids], natural logarithms, give scores; none: no scores. Errors:
     * pg_answer_create_from_ids(), PG_ERROR_ARGUMENT (another number of log_probs). */
    static outcome<answer> create_from_ids(const processor &processor, span<const int64_t> ids,
                                           span<const float> log_probs, const answer_options &options) {
        if (!log_probs.empty() && log_probs.size() != ids.size())
            return detail::refused<answer>("create_from_ids: found " + std::to_string(log_probs.size()) +
                                           " log_probs; expected none or " + std::to_string(ids.size()) +
                                           ", one for each id");
        return make(detail::access::hooks(processor), options, [&](const pg_answer_options *c, pg_answer **out) {
            return pg_answer_create_from_ids(processor.get(), ids.data(),
                                             log_probs.empty() ? nullptr : log_probs.data(), ids.size(), c, out);
        });
    }
    /** Those in a text of any origin; no scores. Its size counts. Errors: pg_answer_create_from_text(). */
    static outcome<answer> create_from_text(std::string_view text, const answer_options &options) {
        return make(nullptr, options, [&](const pg_answer_options *c, pg_answer **out) {
            return pg_answer_create_from_text(text.data(), text.size(), c, out);
        });
    }
    /** The text that they were found in, up to its first byte 0, valid as long as the answer. */
    std::string_view text() const &noexcept { return pg_answer_get_text(get()); }
    std::string_view text() const && = delete;                                    ///< it would be gone
    int64_t n_objects() const noexcept { return pg_answer_get_n_objects(get()); } ///< objects, broken ones included
    /** Object `index`: label (valid as long as the answer), box x0 y0 x1 y1 in pixels, score, flags. Errors:
     * PG_ERROR_ARGUMENT (no such object). */
    outcome<pg_object> object(int64_t index) const & {
        detail::call call(hooks());
        auto found = detail::sized<pg_object>();
        return call.finish(pg_answer_get_object(get(), index, &found), [&] { return found; });
    }
    outcome<pg_object> object(int64_t index) const && = delete; ///< its label would be gone
    /** The mask of object `index` into the caller's u8 [height, width]: 128 and more is inside. Errors:
     * pg_answer_get_mask(). */
    outcome<void> mask(int64_t index, const mask_decoder &decoder, span<uint8_t> mask) const {
        detail::call call(detail::join(hooks(), detail::access::hooks(decoder)));
        return call.finish(pg_answer_get_mask(get(), index, decoder.get(), mask.data(), mask.size()));
    }
    /** The same: u8 [height, width]. */
    outcome<std::vector<uint8_t>> mask(int64_t index, const mask_decoder &decoder) const {
        detail::call call(detail::join(hooks(), detail::access::hooks(decoder)));
        std::vector<uint8_t> made(n_pixels_);
        return call.finish(pg_answer_get_mask(get(), index, decoder.get(), made.data(), made.size()),
                           [&] { return std::move(made); });
    }

   private:
    template <class Make>
    static outcome<answer> make(const detail::kept &parents, const answer_options &options, Make create) {
        detail::call call(detail::join(parents, detail::keep({}, options.memory)));
        const detail::c_allocator memory(options.memory.get());
        pg_answer_options c = options;
        memory.set(c);
        pg_answer *made = nullptr;
        return call.finish(create(&c, &made), [&] {
            return answer(made, call.hooks(),
                          static_cast<std::size_t>(options.width) * static_cast<std::size_t>(options.height));
        });
    }
    answer(pg_answer *made, detail::kept hooks, std::size_t n_pixels) noexcept
        : handle(made, std::move(hooks)), n_pixels_(n_pixels) {}
    std::size_t n_pixels_ = 0;
};

namespace detail {
inline bool mask_has(span<const uint8_t> mask, int32_t width, int32_t height) {
    return width >= 1 && height >= 1 &&
           mask.size() / static_cast<std::size_t>(width) >= static_cast<std::size_t>(height);
}
template <class T>
outcome<T> mask_refused(span<const uint8_t> mask, int32_t width, int32_t height) {
    return refused<T>("a mask: found " + std::to_string(mask.size()) + " bytes; expected " + std::to_string(width) +
                      " x " + std::to_string(height) + ", 1 or more of each");
}
} // namespace detail

/** Run lengths of a mask, u8 [height, width], as COCO's annotations have them: down the columns, outside first. Errors:
 * pg_mask_get_counts(), PG_ERROR_ARGUMENT (the mask is smaller). */
inline outcome<std::vector<uint32_t>> mask_counts(span<const uint8_t> mask, int32_t width, int32_t height) {
    if (!detail::mask_has(mask, width, height)) return detail::mask_refused<std::vector<uint32_t>>(mask, width, height);
    detail::call call;
    std::size_t needed = 0;
    std::vector<uint32_t> counts;
    pg_status status = pg_mask_get_counts(mask.data(), width, height, nullptr, 0, &needed);
    if (status >= 0) {
        counts.resize(needed);
        status = pg_mask_get_counts(mask.data(), width, height, counts.data(), counts.size(), &needed);
    }
    return call.finish(status, [&] { return std::move(counts); });
}
/** The same as pycocotools' text. Errors: likewise. */
inline outcome<std::string> mask_rle(span<const uint8_t> mask, int32_t width, int32_t height) {
    if (!detail::mask_has(mask, width, height)) return detail::mask_refused<std::string>(mask, width, height);
    return detail::copied_text(nullptr, [&](char *text, std::size_t capacity, std::size_t *needed) {
        return pg_mask_get_rle(mask.data(), width, height, text, capacity, needed);
    });
}

/* ---- Forward ---- */

/** Logits, loss and hidden states of a batch. Read-only, for any number of threads. */
class outputs : public detail::handle<pg_outputs, pg_outputs_close> {
   public:
    outputs() = default; ///< empty
    /** A tensor by its HF name: "logits", "loss", "hidden_states", "last_hidden_state", "attentions", "embeddings",
     * "image_hidden_states", f32 with the shapes that pg_outputs_get_tensor() names, valid as long as the outputs.
     * Errors: PG_ERROR_NOT_FOUND. */
    outcome<tensor> get(zstring name) const & {
        detail::call call(hooks());
        tensor found;
        return call.finish(pg_outputs_get_tensor(get(), name.c_str(), &found), [&] { return found; });
    }
    outcome<tensor> get(zstring name) const && = delete; ///< the tensor would be gone
    using handle::get;

   private:
    friend outcome<outputs> forward(const model &, const inputs &, const forward_options &);
    outputs(pg_outputs *made, detail::kept hooks) noexcept : handle(made, std::move(hooks)) {}
};

/** One pass over a batch; nothing is generated. Errors: pg_forward(). */
inline outcome<outputs> forward(const model &model, const inputs &inputs, const forward_options &options = {}) {
    detail::call call(detail::join(detail::access::hooks(model), detail::access::hooks(inputs)));
    pg_forward_options c = options;
    detail::set_progress(c, options.progress);
    pg_outputs *made = nullptr;
    return call.finish(pg_forward(model.get(), inputs.get(), &c, &made), [&] { return outputs(made, call.hooks()); });
}

/* ---- Sessions ---- */

/** What a step of a session gave. */
struct step {
    pg_status event = PG_OK;      ///< PG_OK: go on; PG_EVENT_*: why the text is over
    std::optional<int64_t> token; ///< of PG_OK and PG_EVENT_EOS
};

/** A sequence that is generated token by token. One call at a time, else PG_ERROR_STATE; it may move between threads.
 */
class session : public detail::handle<pg_session, pg_session_close> {
   public:
    session() = default; ///< empty
    /** Allocates all memory and starts the threads. It keeps the model and the cancel flag. Errors:
     * pg_session_create().
     */
    static outcome<session> create(const model &model, const session_options &options = {}) {
        detail::kept own = detail::keep({}, nullptr, options.progress);
        detail::call call(detail::join(detail::access::hooks(model), own));
        pg_session_options c = options;
        if (own) detail::set_progress(c, own->progress);
        pg_session *made = nullptr;
        return call.finish(pg_session_create(model.get(), &c, &made), [&] { return session(made, call.hooks()); });
    }
    /** Feeds a prompt of one row, and starts over. Errors: pg_session_prefill(). */
    outcome<void> prefill(const inputs &inputs) { return prefill(inputs, nullptr); }
    /** The same with the features of its image, in place of pixels. */
    outcome<void> prefill(const inputs &inputs, const features &features) { return prefill(inputs, &features); }
    /** The likeliest next token. Errors: pg_session_step(). */
    outcome<paligemma::step> step() {
        detail::call call(hooks());
        int64_t token = 0;
        const pg_status status = pg_session_step(get(), &token);
        return call.finish(status, [&] { return stepped(status, token); });
    }
    /** The next token as generation_config.json says: pg_session_sample(). */
    outcome<paligemma::step> sample() { return sample(static_cast<const pg_sampling_options *>(nullptr)); }
    /** The next token by these settings, which may be others at every step. Their callbacks must not use the session.
     */
    outcome<paligemma::step> sample(const sampling_options &options) {
        const pg_sampling_options c = options.c_options();
        return sample(&c);
    }
    /** Feeds tokens of the host's choice, which count as returned. Errors: pg_session_feed(). */
    outcome<void> feed(span<const int64_t> ids) {
        detail::call call(hooks());
        return call.finish(pg_session_feed(get(), ids.data(), ids.size()));
    }
    /** f32 [vocab_size], valid until the next call on the session. Errors: pg_session_get_logits(). */
    outcome<tensor> logits() const & {
        detail::call call(hooks());
        tensor found;
        return call.finish(pg_session_get_logits(get(), &found), [&] { return found; });
    }
    outcome<tensor> logits() const && = delete; ///< the tensor would be gone

   private:
    friend outcome<std::vector<paligemma::step>> step_together(span<session *const> sessions, bool samples);
    outcome<void> prefill(const inputs &inputs, const features *features) {
        detail::kept all = detail::join(hooks(), detail::access::hooks(inputs));
        if (features) all = detail::join(all, detail::access::hooks(*features));
        detail::call call(std::move(all));
        return call.finish(pg_session_prefill(get(), inputs.get(), features ? features->get() : nullptr));
    }
    outcome<paligemma::step> sample(const pg_sampling_options *options) {
        detail::call call(hooks());
        int64_t token = 0;
        const pg_status status = pg_session_sample(get(), options, &token);
        return call.finish(status, [&] { return stepped(status, token); });
    }
    static paligemma::step stepped(pg_status event, int64_t token) {
        paligemma::step made;
        made.event = event;
        if (event == PG_OK || event == PG_EVENT_EOS) made.token = token;
        return made;
    }
    session(pg_session *made, detail::kept hooks) noexcept : handle(made, std::move(hooks)) {}
};

/** A step of sessions of one base model as the rows of one pass; each gets what it gets alone. event of each is also
 * the error that it ended with alone, a PG_ERROR_*. samples false: no tokens are chosen, and session::sample() of each
 * then runs no pass. Errors of the whole call: pg_session_step_together(). */
inline outcome<std::vector<step>> step_together(span<session *const> sessions, bool samples = true) {
    constexpr pg_status untold = INT32_MIN;
    detail::kept all;
    std::vector<pg_session *> handles;
    for (session *one : sessions) {
        handles.push_back(one ? one->get() : nullptr);
        if (one) all = detail::join(all, one->hooks());
    }
    detail::call call(std::move(all));
    std::vector<int64_t> tokens(sessions.size());
    std::vector<pg_status> statuses(sessions.size() + 1, untold);
    const pg_status status = pg_session_step_together(handles.data(), static_cast<int64_t>(handles.size()),
                                                      samples ? tokens.data() : nullptr, statuses.data());
    return call.finish(statuses[0] == untold ? status : PG_OK, [&] {
        std::vector<step> made;
        for (std::size_t i = 0; i < tokens.size(); i++) {
            made.push_back(session::stepped(statuses[i], tokens[i]));
            if (!samples) made.back().token.reset();
        }
        return made;
    });
}

/** Turns ids into text one by one. One call at a time, else PG_ERROR_STATE. */
class detokenizer : public detail::handle<pg_detokenizer, pg_detokenizer_close> {
   public:
    detokenizer() = default; ///< empty
    /** flags: PG_DECODE_SKIP_SPECIAL or 0. It keeps the processor. */
    static outcome<detokenizer> create(const processor &processor, uint32_t flags = 0) {
        detail::call call(detail::access::hooks(processor));
        pg_detokenizer *made = nullptr;
        return call.finish(pg_detokenizer_create(processor.get(), flags, &made),
                           [&] { return detokenizer(made, call.hooks()); });
    }
    /** The text that an id completes, in whole characters, valid until the next call. Errors: PG_ERROR_ARGUMENT. */
    outcome<std::string_view> push(int64_t id) {
        detail::call call(hooks());
        const char *text = "";
        std::size_t size = 0;
        return call.finish(pg_detokenizer_push(get(), id, &text, &size), [&] { return std::string_view(text, size); });
    }
    /** What was held back, at the end, valid until the next call; then it starts anew. */
    outcome<std::string_view> flush() {
        detail::call call(hooks());
        const char *text = "";
        std::size_t size = 0;
        return call.finish(pg_detokenizer_flush(get(), &text, &size), [&] { return std::string_view(text, size); });
    }

   private:
    detokenizer(pg_detokenizer *made, detail::kept hooks) noexcept : handle(made, std::move(hooks)) {}
};

/* ---- Worker ---- */

/** Options of worker::create(). */
struct worker_options : pg_worker_options {
    worker_options() noexcept : pg_worker_options() { pg_worker_options_init(this, sizeof(pg_worker_options)); }
};

/** What happened to a request. The views and the object are valid until the next poll, in a callback during the call.
 */
struct worker_event {
    int32_t kind = 0;                 ///< PG_WORKER_EVENT_TEXT, _OBJECT, _DONE
    int64_t ticket = 0;               ///< of the request
    uint64_t user = 0;                ///< of its options
    pg_status status = PG_OK;         ///< DONE: how it ended
    int32_t stop = 0;                 ///< DONE with PG_OK: PG_STOP_*
    std::string_view text;            ///< TEXT: the piece; DONE: the whole text, or the error's words
    const pg_object *found = nullptr; ///< OBJECT
    int64_t n_new_tokens = 0;         ///< DONE
    double wait_seconds = 0;          ///< DONE
    double run_seconds = 0;           ///< DONE
};

/** Receives the events of a request on a background thread. What it throws ends the request (PG_ERROR_CANCELLED, with
 * its what()); of DONE it is dropped. */
using worker_callback = std::function<void(const worker_event &event)>;

/** Options of worker::submit(). */
struct request_options : pg_request_options {
    request_options() noexcept : pg_request_options() { pg_request_options_init(this, sizeof(pg_request_options)); }
    worker_callback on_event; ///< copied, lives until DONE; none: the events are polled
    const sampling_options *sampling =
        nullptr;                            ///< the caller's; its callbacks must stay until DONE, the rest is copied
    const encode_options *encode = nullptr; ///< the caller's, copied
};

namespace detail {

inline worker_event seen(const pg_worker_event &c) {
    worker_event event;
    event.kind = c.kind;
    event.ticket = c.ticket;
    event.user = c.user;
    event.status = c.status;
    event.stop = c.stop;
    event.text = std::string_view(c.text, static_cast<std::size_t>(c.size));
    event.found = c.object;
    event.n_new_tokens = c.n_new_tokens;
    event.wait_seconds = c.wait_seconds;
    event.run_seconds = c.run_seconds;
    return event;
}
/** `user` is a worker_callback of its own, which ends with the request. */
inline void on_event(void *user, const pg_worker_event *event) {
    std::unique_ptr<worker_callback> ends(event->kind == PG_WORKER_EVENT_DONE ? static_cast<worker_callback *>(user)
                                                                              : nullptr);
    (*static_cast<const worker_callback *>(user))(seen(*event));
}

} // namespace detail

/** Background threads that own sessions, for loops that must not wait. Any number of threads may submit and cancel, one
 * polls. Dropped in a callback of its own it ends by itself, a little later: memory hooks of the model have to live as
 * long. */
class worker : public detail::handle<pg_worker, pg_worker_close> {
   public:
    worker() = default; ///< empty
    /** Starts the threads. It keeps model and processor. Errors: pg_worker_create(). */
    static outcome<worker> create(const model &model, const processor &processor, const worker_options &options = {}) {
        detail::call call(detail::join(detail::access::hooks(model), detail::access::hooks(processor)));
        pg_worker *made = nullptr;
        return call.finish(pg_worker_create(model.get(), processor.get(), &options, &made),
                           [&] { return worker(made, call.hooks()); });
    }
    /** Hands over an image and a prompt: the ticket of the request. Errors: PG_ERROR_BUSY (the queue is full),
     * pg_worker_submit(). */
    outcome<int64_t> submit(const image &image, zstring prompt, const request_options &options = {}) {
        detail::call call(hooks());
        pg_request_options c = options;
        pg_sampling_options sampling;
        std::unique_ptr<worker_callback> callback;
        if (options.sampling) {
            sampling = options.sampling->c_options();
            c.sampling = &sampling;
        }
        c.encode = options.encode;
        if (options.on_event) {
            callback = std::make_unique<worker_callback>(options.on_event);
            c.on_event = detail::on_event;
            c.on_event_user = callback.get();
        }
        int64_t ticket = 0;
        const pg_status status = pg_worker_submit(get(), &image, prompt.c_str(), &c, &ticket);
        if (status >= 0) (void)callback.release(); // DONE ends it
        return call.finish(status, [&] { return ticket; });
    }
    /** Ends a request with PG_ERROR_CANCELLED; one that has ended stays as it is. Errors: PG_ERROR_ARGUMENT. */
    outcome<void> cancel(int64_t ticket) {
        detail::call call(hooks());
        return call.finish(pg_worker_cancel(get(), ticket));
    }
    /** The next event, if there is one; never blocks. Errors: PG_ERROR_STATE (another thread is polling). */
    outcome<std::optional<worker_event>> poll() {
        return next([&](pg_worker_event *event) { return pg_worker_poll(get(), event); });
    }
    /** The same, but waits for up to `seconds`. */
    outcome<std::optional<worker_event>> wait(double seconds) {
        return next([&](pg_worker_event *event) { return pg_worker_wait(get(), seconds, event); });
    }
    /** How it stands. */
    outcome<pg_worker_info> info() {
        detail::call call(hooks());
        pg_worker_info found = detail::sized<pg_worker_info>();
        return call.finish(pg_worker_get_info(get(), &found), [&] { return found; });
    }

   private:
    template <class Get>
    outcome<std::optional<worker_event>> next(Get get_event) {
        detail::call call(hooks());
        pg_worker_event c;
        pg_worker_event_init(&c, sizeof c);
        const pg_status status = get_event(&c);
        return call.finish(status, [&] {
            return status == PG_OK ? std::optional<worker_event>(detail::seen(c)) : std::optional<worker_event>();
        });
    }
    worker(pg_worker *made, detail::kept hooks) noexcept : handle(made, std::move(hooks)) {}
};

/* ---- Training ---- */

/** A parameter in training, as pg_parameter. */
struct parameter : pg_parameter {
    parameter() noexcept : pg_parameter() { struct_size = sizeof(pg_parameter); }
    span<const float> values() const noexcept { return {value, size()}; }       ///< [shape], as long as the trainer
    span<const float> gradients() const noexcept { return {gradient, size()}; } ///< [shape], likewise
    /** Numbers of each. */
    std::size_t size() const noexcept {
        std::size_t product = 1;
        for (int32_t i = 0; i < n_dims; i++) product *= static_cast<std::size_t>(shape[i]);
        return product;
    }
};

/** The parameters of an adapter in training. One call at a time, else PG_ERROR_STATE; it may move between threads. */
class trainer : public detail::handle<pg_trainer, pg_trainer_close> {
   public:
    trainer() = default; ///< empty
    /** A trainer of a model, which it keeps. Errors: pg_trainer_create(). */
    static outcome<trainer> create(const model &model, const trainer_options &options = {}) {
        return make(model, options, [&](const pg_trainer_options *c, pg_trainer **out) {
            return pg_trainer_create(model.get(), c, out);
        });
    }
    /** One that goes on where save() was. Errors: pg_trainer_resume(). */
    static outcome<trainer> resume(const model &model, zstring folder, const trainer_options &options = {}) {
        return make(model, options, [&](const pg_trainer_options *c, pg_trainer **out) {
            return pg_trainer_resume(model.get(), folder.c_str(), c, out);
        });
    }
    /** Learns from inputs with labels. Errors: pg_trainer_step(). */
    outcome<pg_train_result> step(const inputs &inputs) {
        detail::call call(detail::join(hooks(), detail::access::hooks(inputs)));
        auto learned = detail::sized<pg_train_result>();
        return call.finish(pg_trainer_step(get(), inputs.get(), &learned), [&] { return learned; });
    }
    /** The loss alone; nothing changes. */
    outcome<pg_train_result> evaluate(const inputs &inputs) {
        detail::call call(detail::join(hooks(), detail::access::hooks(inputs)));
        auto found = detail::sized<pg_train_result>();
        return call.finish(pg_trainer_evaluate(get(), inputs.get(), &found), [&] { return found; });
    }
    /** Writes a folder that PEFT, adapter::open() and resume() read. Errors: pg_trainer_save(). */
    outcome<void> save(zstring folder) {
        detail::call call(hooks());
        return call.finish(pg_trainer_save(get(), folder.c_str()));
    }
    /** Updates so far, resumed ones too. */
    outcome<int64_t> n_updates() const {
        detail::call call(hooks());
        int64_t n = 0;
        return call.finish(pg_trainer_get_step(get(), &n), [&] { return n; });
    }
    /** Arrays in training, not numbers. */
    outcome<std::size_t> count_parameters() const {
        detail::call call(hooks());
        std::size_t n = 0;
        return call.finish(pg_trainer_count_parameters(get(), &n), [&] { return n; });
    }
    /** Parameter `index` in the order of their names, valid as long as the trainer. Errors: PG_ERROR_ARGUMENT. */
    outcome<paligemma::parameter> parameter(std::size_t index) const & {
        detail::call call(hooks());
        paligemma::parameter found;
        return call.finish(pg_trainer_get_parameter(get(), index, &found), [&] { return found; });
    }
    outcome<paligemma::parameter> parameter(std::size_t index) const && = delete; ///< its numbers would be gone

   private:
    template <class Make>
    static outcome<trainer> make(const model &model, const trainer_options &options, Make create) {
        detail::kept own = detail::keep({}, nullptr, options.progress);
        detail::call call(detail::join(detail::access::hooks(model), own));
        pg_trainer_options c = options;
        if (own) detail::set_progress(c, own->progress);
        pg_trainer *made = nullptr;
        return call.finish(create(&c, &made), [&] { return trainer(made, call.hooks()); });
    }
    trainer(pg_trainer *made, detail::kept hooks) noexcept : handle(made, std::move(hooks)) {}
};

/* ---- Advanced: hub cache, conversion ---- */

/** Where a model id lies in a local Hugging Face cache; cache NULL: where the environment says. Errors:
 * pg_checkpoint_find(). */
inline outcome<std::string> find_checkpoint(zstring model, zstring cache = nullptr) {
    return detail::copied_text(nullptr, [&](char *path, std::size_t capacity, std::size_t *needed) {
        return pg_checkpoint_find(model.c_str(), cache.c_str(), path, capacity, needed);
    });
}
/** The HF config of a folder or model id as JSON text, with all defaults. Errors: pg_checkpoint_get_config(). */
inline outcome<std::string> checkpoint_config(zstring model) {
    return detail::copied_text(nullptr, [&](char *text, std::size_t capacity, std::size_t *needed) {
        return pg_checkpoint_get_config(model.c_str(), text, capacity, needed);
    });
}

/** What the layers of a model read, for a conversion that rounds by it (convert_options.calibration = x.get()). One
 * call at a time, else PG_ERROR_STATE; it may move between threads. */
class calibration : public detail::handle<pg_calibration, pg_calibration_close> {
   public:
    calibration() = default; ///< empty
    /** Of a model with stored weights, which it keeps. Errors: pg_calibration_create(). */
    static outcome<calibration> create(const model &model) {
        detail::call call(detail::access::hooks(model));
        pg_calibration *made = nullptr;
        return call.finish(pg_calibration_create(model.get(), &made), [&] { return calibration(made, call.hooks()); });
    }
    /** One that save() wrote, with the same tag. Errors: pg_calibration_load(). */
    static outcome<calibration> load(const model &model, zstring path, uint64_t tag) {
        detail::call call(detail::access::hooks(model));
        pg_calibration *made = nullptr;
        return call.finish(pg_calibration_load(model.get(), path.c_str(), tag, &made),
                           [&] { return calibration(made, call.hooks()); });
    }
    /** Runs the model over the rows of the inputs. Errors: pg_calibration_add(). */
    outcome<void> add(const inputs &inputs, const run_options &options = {}) {
        detail::call call(detail::join(hooks(), detail::access::hooks(inputs)));
        pg_run_options c = options;
        detail::set_progress(c, options.progress);
        return call.finish(pg_calibration_add(get(), inputs.get(), &c));
    }
    /** Rows that were added. */
    outcome<int64_t> n_rows() const {
        detail::call call(hooks());
        int64_t n = 0;
        return call.finish(pg_calibration_get_rows(get(), &n), [&] { return n; });
    }
    /** Writes the sums, to go on after an interruption; tag: a number of the caller's. Errors: pg_calibration_save().
     */
    outcome<void> save(zstring path, uint64_t tag) const {
        detail::call call(hooks());
        return call.finish(pg_calibration_save(get(), path.c_str(), tag));
    }

   private:
    calibration(pg_calibration *made, detail::kept hooks) noexcept : handle(made, std::move(hooks)) {}
};

/** Writes a checkpoint with quantized weights, or with adapters merged, to a new folder. Errors: pg_model_convert(). */
inline outcome<void> convert(zstring model, zstring out, const convert_options &options = {}) {
    detail::call call(detail::keep(options.log, options.memory));
    const detail::c_allocator memory(options.memory.get());
    pg_convert_options c = options;
    memory.set(c);
    detail::set_log(c, call.hooks());
    detail::set_progress(c, options.progress);
    return call.finish(pg_model_convert(model.c_str(), out.c_str(), &c));
}

} // inline namespace
} // namespace paligemma

#if __cplusplus > 201703L
/** A span outlives what it was made of, as std::span. */
template <class T>
inline constexpr bool std::ranges::enable_borrowed_range<paligemma::span<T>> = true;
#endif

#endif /* PALIGEMMA_PALIGEMMA_HPP */
