/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* paligemma.hpp with exceptions: every call, what callbacks throw, moves, lifetimes. The other kind of errors is in
 * cpp_returning.cc, linked into the same program. */
#include <atomic>
#include <new>
#include <thread>

#include "cpp_calls.hpp"

#ifdef PALIGEMMA_NO_EXCEPTIONS
#error this program is for exceptions
#endif

namespace {

/** What no library knows, and no std::exception is. */
struct deliberate {
    int number;
};

/** True when the call threw `deliberate` with this number. */
template <class Call>
bool throws(int number, Call call) {
    try {
        call();
    } catch (const deliberate &thrown) {
        return thrown.number == number;
    } catch (const std::exception &e) {
        std::fprintf(stderr, "found another exception: %s\n", e.what());
    }
    return false;
}

/** The status of the error that the call threw; PG_OK: none. */
template <class Call>
pg_status fails(Call call) {
    try {
        call();
    } catch (const pg::error &e) {
        CHECK(e.what()[0] != 0);
        return e.status();
    }
    return PG_OK;
}

void test_errors(const world &w) {
    CHECK(fails([] { pg::model::open("/nowhere/at/all"); }) == PG_ERROR_NOT_FOUND);
    CHECK(fails([] { pg::processor::open("/nowhere/at/all"); }) == PG_ERROR_NOT_FOUND);
    CHECK(fails([&] { w.processor.encode(w.image, "a\xff"); }) == PG_ERROR_ARGUMENT);
    CHECK(fails([&] { w.processor.piece(-1); }) == PG_ERROR_ARGUMENT);
    CHECK(fails([&] { w.inputs.get("nothing"); }) == PG_ERROR_NOT_FOUND);
    CHECK(fails([&] { pg::convert("/nowhere/at/all", w.files.work); }) == PG_ERROR_NOT_FOUND);
    CHECK(fails([&] { w.processor.encode(pg::image(), "the"); }) == PG_ERROR_ARGUMENT);
    // what this header looks at itself
    CHECK(fails([&] { w.inputs.get("input_ids").as<float>(); }) == PG_ERROR_ARGUMENT);
    std::vector<float> few(3);
    const std::vector<int64_t> ids = {5}, sizes = {2}, negative = {2, -1};
    CHECK(fails([&] { w.model.embed(ids, few); }) == PG_ERROR_ARGUMENT);
    CHECK(fails([&] { pg::score_ids(w.model, w.inputs, ids, sizes); }) == PG_ERROR_ARGUMENT);
    CHECK(fails([&] { pg::score_ids(w.model, w.inputs, ids, negative); }) == PG_ERROR_ARGUMENT);
    CHECK(fails([&] { pg::tensor::of(pg::span<const float>(few), {2, 2}); }) == PG_ERROR_ARGUMENT);
    CHECK(fails([&] { pg::tensor::of(pg::span<const float>(few), {1}); }) == PG_ERROR_ARGUMENT);
    CHECK(fails([&] { pg::tensor::of(pg::span<const float>(few), {3, -1}); }) == PG_ERROR_ARGUMENT);
    CHECK(fails([&] { pg::tensor::of(pg::span<const float>(few), {}); }) == PG_ERROR_ARGUMENT);
    CHECK(fails([&] { pg::tensor::of(pg::span<const float>(few), {1, 1, 1, 1, 3}); }) == PG_ERROR_ARGUMENT);
    const pg::answer_options size(4, 4);
    CHECK(fails([&] { pg::answer::create_from_ids(w.processor, ids, few, size); }) == PG_ERROR_ARGUMENT);
    CHECK(fails([] { pg::answer::create_from_text("cat", pg::answer_options()); }) == PG_ERROR_ARGUMENT);
    const std::vector<uint8_t> mask(15);
    CHECK(fails([&] { pg::mask_counts(mask, 4, 4); }) == PG_ERROR_ARGUMENT);
    CHECK(fails([&] { pg::mask_rle(mask, -3, -5); }) == PG_ERROR_ARGUMENT);
    const pg::mask_decoder decoder = pg::mask_decoder::open(w.files.masks);
    const std::vector<int32_t> codes(15);
    CHECK(fails([&] { decoder.decode(codes, few); }) == PG_ERROR_ARGUMENT);
    // a buffer that is smaller than its rows
    const std::vector<uint8_t> pixels(8 * 8 * 3 - 1);
    CHECK(fails([&] { w.processor.encode(pg::image::from_pixels(PG_IMAGE_RGB8, 8, 8, pixels), ""); }) ==
          PG_ERROR_ARGUMENT);
    // the row of a batch
    const char *const prompts[] = {"the", "a\xff"};
    pg::batch rows;
    rows.set_prompts(prompts);
    try {
        const auto encoded = w.processor.encode_batch(rows);
        CHECK(false);
    } catch (const pg::error &e) {
        CHECK(e.status() == PG_ERROR_ARGUMENT && e.row() == 1);
    }
}

/** A hook that throws at the call of number `at`. */
struct bomb {
    explicit bomb(int call) : at(call) {}
    template <class... Arguments>
    void operator()(Arguments &&...) {
        if (++n_calls == at) throw deliberate{at};
    }
    int at, n_calls = 0;
};

void test_throwing_per_call(const world &w) {
    const std::string out = std::string(w.files.work) + "/never";
    const pg::inputs labelled = w.labelled();
    const char *const answers[] = {"cat", "the"};
    for (const int at : {1, 2}) {
        pg::generate_options generate = w.few();
        generate.on_text = bomb(at);
        CHECK(throws(at, [&] { pg::generate(w.model, w.processor, w.inputs, generate); }));
        generate = w.few();
        generate.progress = bomb(at);
        CHECK(throws(at, [&] { pg::generate(w.model, w.processor, w.inputs, generate); }));
        generate = w.few();
        pg::sampling_options sampling;
        generate.sampling = &sampling;
        sampling.on_logits = bomb(at);
        CHECK(throws(at, [&] { pg::generate(w.model, w.processor, w.inputs, generate); }));
        sampling = pg::sampling_options();
        sampling.on_mask = [explode = bomb(at)](int64_t, pg::span<const int64_t>, pg::span<uint32_t> mask,
                                                int64_t) mutable {
            for (uint32_t &word : mask) word = UINT32_MAX;
            explode();
        };
        CHECK(throws(at, [&] { pg::generate(w.model, w.processor, w.inputs, generate); }));
        generate = w.few();
        pg::beam_options beams;
        beams.n_beams = 2;
        beams.on_texts = bomb(at);
        generate.beams = &beams;
        CHECK(throws(at, [&] { pg::generate(w.model, w.processor, w.inputs, generate); }));
        pg::model_options open;
        open.progress = bomb(at);
        CHECK(throws(at, [&] { pg::model::open(w.files.model, open); }));
        pg::score_options score;
        score.progress = bomb(at);
        CHECK(throws(at, [&] { pg::score(w.model, w.processor, w.inputs, answers, score); }));
        pg::forward_options forward;
        forward.progress = bomb(at);
        CHECK(throws(at, [&] { pg::forward(w.model, labelled, forward); }));
        pg::run_options run;
        run.progress = bomb(at);
        CHECK(throws(at, [&] { pg::features::create(w.model, w.inputs, run); }));
        pg::calibration calibration = pg::calibration::create(w.model);
        run.progress = bomb(at);
        CHECK(throws(at, [&] { calibration.add(w.inputs, run); }));
        pg::adapter_options adapter;
        adapter.progress = bomb(at);
        CHECK(throws(at, [&] { pg::adapter::open(w.model, w.files.adapter, adapter); }));
        pg::convert_options convert;
        convert.progress = bomb(at);
        CHECK(throws(at, [&] { pg::convert(w.files.model, out, convert); }));
    }
    pg::convert_options convert;
    convert.log = bomb(1);
    CHECK(throws(1, [&] { pg::convert(w.files.model, out, convert); }));
    CHECK(fails([&] { pg::model::open(out); }) == PG_ERROR_NOT_FOUND); // nothing was left
    // a stop that asks for no exception has none
    pg::generate_options stopped = w.few();
    stopped.progress = [](int32_t, int64_t, int64_t) { return pg::flow::stop; };
    CHECK(fails([&] { pg::generate(w.model, w.processor, w.inputs, stopped); }) == PG_ERROR_CANCELLED);
    pg::cancel_flag flag = pg::cancel_flag::create();
    pg::generate_options cancelled = w.few();
    cancelled.cancel = flag.get();
    flag.request();
    CHECK(fails([&] { pg::generate(w.model, w.processor, w.inputs, cancelled); }) == PG_ERROR_CANCELLED);
    flag.clear();
    CHECK(pg::generate(w.model, w.processor, w.inputs, cancelled).n_rows() == 1);
}

void test_throwing_in_handles(const world &w) {
    // the log of a model and of a processor, at opening and later
    pg::model_options open;
    open.log = bomb(1);
    CHECK(throws(1, [&] { pg::model::open(w.files.model, open); }));
    bool armed = false;
    pg::processor_options options;
    options.log = [&](int32_t, std::string_view) {
        if (armed) throw deliberate{3};
    };
    const pg::processor processor = pg::processor::open(w.files.model, options);
    const std::vector<uint8_t> pixels(8 * 8 * 4, 1); // transparent ones are warned of
    const pg::image transparent = pg::image::from_pixels(PG_IMAGE_RGBA8, 8, 8, pixels);
    armed = true;
    CHECK(throws(3, [&] { processor.encode(transparent, "the"); }));
    armed = false;
    CHECK(processor.encode(transparent, "the").get() != nullptr);
    // progress of a session and a trainer, which go on after it
    pg::session_options session_options;
    session_options.progress = [&](int32_t, int64_t, int64_t) {
        if (armed) throw deliberate{4};
    };
    pg::session session = pg::session::create(w.model, session_options);
    session_options = pg::session_options(); // the session has its own
    armed = true;
    CHECK(throws(4, [&] { session.prefill(w.inputs); }));
    armed = false;
    session.prefill(w.inputs);
    session.step();
    armed = true;
    CHECK(throws(4, [&] { session.step(); }));
    armed = false;
    session.prefill(w.inputs);
    CHECK(session.step().token.has_value());
    {
        pg::session other = pg::session::create(w.model), alone = pg::session::create(w.model), none;
        other.prefill(w.inputs);
        alone.prefill(w.inputs);
        pg::session *const both[] = {&session, &other};
        const std::vector<pg::step> steps = pg::step_together(both);
        CHECK(steps.size() == 2 && steps[1].token == alone.step().token);
        CHECK(!pg::step_together(both, false)[1].token);
        pg::session *const refused[] = {&session, &none};
        CHECK(fails([&] { pg::step_together(refused); }) == PG_ERROR_ARGUMENT);
    }
    {
        pg::worker_options worker_options;
        worker_options.n_threads = 1;
        worker_options.max_new_tokens = 4;
        pg::worker worker = pg::worker::create(w.model, w.processor, worker_options);
        pg::request_options request;
        request.user = 7;
        const int64_t polled = worker.submit(w.image, "the", request);
        std::string pieces, text, words;
        for (bool ended = false; !ended;) {
            const std::optional<pg::worker_event> event = worker.wait(60);
            CHECK(event && event->ticket == polled && event->user == 7);
            if (event->kind == PG_WORKER_EVENT_TEXT) pieces += event->text;
            ended = event->kind == PG_WORKER_EVENT_DONE;
            if (ended) text = event->text;
        }
        CHECK(pieces == text && !worker.poll());
        std::atomic<int> n_done{0};
        request.on_event = [&](const pg::worker_event &event) {
            if (event.kind == PG_WORKER_EVENT_TEXT) throw std::runtime_error("a piece");
            CHECK(event.kind == PG_WORKER_EVENT_DONE && event.status == PG_ERROR_CANCELLED);
            words = event.text;
            n_done++;
        };
        worker.submit(w.image, "the", request);
        while (n_done == 0) std::this_thread::yield();
        CHECK(words.find("on_event threw a C++ exception: a piece") != std::string::npos);
        worker.cancel(polled);
        CHECK(fails([&] { worker.cancel(99); }) == PG_ERROR_ARGUMENT);
        CHECK(worker.info().n_accepted == 2);
    }
    pg::sampling_options sampling;
    sampling.on_logits = bomb(1);
    CHECK(throws(1, [&] { session.sample(sampling); }));
    pg::trainer_options trainer_options;
    trainer_options.rank = 2;
    trainer_options.progress = [&](int32_t, int64_t, int64_t) {
        if (armed) throw deliberate{5};
    };
    pg::trainer trainer = pg::trainer::create(w.model, trainer_options);
    const pg::inputs labelled = w.labelled();
    armed = true;
    CHECK(throws(5, [&] { trainer.step(labelled); }));
    CHECK(throws(5, [&] { trainer.evaluate(labelled); }));
    armed = false;
    CHECK(trainer.step(labelled).updated == 1);
}

/** Memory that counts, and throws from the call of number `at` on. */
struct counted {
    std::shared_ptr<pg::memory_hooks> hooks = std::make_shared<pg::memory_hooks>();
    std::atomic<int64_t> n_live{0}, n_calls{0}, at{0};
    counted() {
        hooks->alloc = [this](std::size_t size, std::size_t alignment) -> void * {
            if (++n_calls >= at && at > 0) throw deliberate{6};
            CHECK(alignment <= 64);
            void *memory = ::operator new (size, std::align_val_t{64}, std::nothrow);
            n_live += memory != nullptr;
            return memory;
        };
        hooks->free = [this](void *memory) {
            n_live--;
            ::operator delete (memory, std::align_val_t{64});
            if (at > 0) throw deliberate{7}; // the library drops it
        };
    }
};

void test_memory(const world &w) {
    counted memory;
    {
        pg::model_options options;
        options.memory = memory.hooks;
        pg::model::open(w.files.model, options);
        const int64_t n_calls = memory.n_calls;
        CHECK(n_calls > 20);
        for (int64_t at = 1; at <= n_calls; at += 7) {
            memory.n_calls = 0;
            memory.at = at;
            CHECK(throws(6, [&] { pg::model::open(w.files.model, options); }));
            CHECK(memory.n_live == 0);
        }
        memory.at = 0;
        pg::model model = pg::model::open(w.files.model, options);
        options.memory.reset();
        pg::session session = pg::session::create(model);
        model.reset();
        memory.hooks.reset(); // the session keeps the functions that release its memory
        session.prefill(w.inputs);
        CHECK(memory.n_live > 0);
    }
    CHECK(memory.n_live == 0);
    counted answers;
    pg::answer_options options(8, 8);
    options.memory = answers.hooks;
    pg::answer answer = pg::answer::create_from_text("<loc0001><loc0002><loc0003><loc0004> cat", options);
    CHECK(answers.n_live > 0 && answer.n_objects() == 1);
    answer.reset();
    CHECK(answers.n_live == 0 && answer.n_objects() == 0 && answer.text().empty());
    answers.at = 1;
    CHECK(throws(6, [&] { pg::answer::create_from_text("cat", options); }));
    counted masks;
    pg::mask_decoder_options decoder;
    decoder.memory = masks.hooks;
    masks.at = 3;
    CHECK(throws(6, [&] { pg::mask_decoder::open(w.files.masks, decoder); }));
    CHECK(masks.n_live == 0);
    counted arrays;
    pg::input_arrays own;
    const std::vector<int64_t> ids = {2, 5};
    const pg::tensor ids_tensor = pg::tensor::of(pg::span<const int64_t>(ids), {1, 2});
    own.input_ids = &ids_tensor;
    own.memory = arrays.hooks;
    CHECK(pg::inputs::create(own).row_info(0).n_tokens == 2);
    CHECK(arrays.n_live == 0);
    arrays.at = 1;
    CHECK(throws(6, [&] { pg::inputs::create(own); }));
}

/** Calls within callbacks: each has its own exceptions. */
void test_nested(const world &w) {
    pg::generate_options outer = w.few();
    int n_inner = 0;
    outer.on_text = [&](int64_t, std::string_view, int64_t) {
        pg::generate_options inner = w.few();
        inner.on_text = bomb(1);
        n_inner += throws(1, [&] { pg::generate(w.model, w.processor, w.inputs, inner); });
        n_inner += fails([&] { w.inputs.get("nothing"); }) == PG_ERROR_NOT_FOUND;
    };
    CHECK(pg::generate(w.model, w.processor, w.inputs, outer).n_rows() == 1 && n_inner >= 2 && n_inner % 2 == 0);
    // an inner exception that nobody catches comes out of both
    outer.on_text = [&](int64_t, std::string_view, int64_t) {
        pg::generate_options inner = w.few();
        inner.on_text = bomb(2);
        pg::generate(w.model, w.processor, w.inputs, inner);
    };
    CHECK(throws(2, [&] { pg::generate(w.model, w.processor, w.inputs, outer); }));
    // so does an error of the library
    outer.on_text = [&](int64_t, std::string_view, int64_t) { w.inputs.get("nothing"); };
    CHECK(fails([&] { pg::generate(w.model, w.processor, w.inputs, outer); }) == PG_ERROR_NOT_FOUND);
}

/** A getter of a handle that is about to end is no call. */
template <class Handle, class = void>
struct gives_to_the_dying : std::false_type {};
template <class Handle>
struct gives_to_the_dying<Handle, std::void_t<decltype(std::declval<Handle>().get("a"))>> : std::true_type {};
static_assert(!gives_to_the_dying<pg::inputs>::value && !gives_to_the_dying<pg::outputs>::value,
              "tensors would dangle");
static_assert(gives_to_the_dying<const pg::inputs &>::value, "the check sees getters");

template <class Handle>
void handle_is_sound() {
    static_assert(!std::is_copy_constructible_v<Handle> && !std::is_copy_assignable_v<Handle>, "moved only");
    static_assert(std::is_nothrow_move_constructible_v<Handle> && std::is_nothrow_move_assignable_v<Handle>, "moves");
    static_assert(std::is_nothrow_default_constructible_v<Handle>, "empty");
    Handle a, b;
    a = std::move(b);
    CHECK(!a && !a.get());
}

void test_moves(const world &w) {
    handle_is_sound<pg::cancel_flag>(), handle_is_sound<pg::model>(), handle_is_sound<pg::processor>();
    handle_is_sound<pg::adapter>(), handle_is_sound<pg::inputs>(), handle_is_sound<pg::features>();
    handle_is_sound<pg::result>(), handle_is_sound<pg::scores>(), handle_is_sound<pg::mask_decoder>();
    handle_is_sound<pg::answer>(), handle_is_sound<pg::outputs>(), handle_is_sound<pg::session>(),
        handle_is_sound<pg::worker>();
    handle_is_sound<pg::detokenizer>(), handle_is_sound<pg::trainer>(), handle_is_sound<pg::calibration>();
    pg::model first = pg::model::open(w.files.model), second = std::move(first);
    CHECK(!first && second && second.info().gemma_version == 1); // NOLINT(bugprone-use-after-move)
    CHECK(fails([&] { first.info(); }) == PG_ERROR_ARGUMENT);
    CHECK(fails([&] { pg::generate(first, w.processor, w.inputs); }) == PG_ERROR_ARGUMENT);
    pg::model &same = second;
    second = std::move(same);
    CHECK(static_cast<bool>(second));
    second = pg::model::open(w.files.model); // the old one is closed
    CHECK(pg::result().n_rows() == 0 && pg::scores().n_answers() == 0);
    // without a processor: ids alone
    const pg::result ids = pg::generate(second, pg::processor(), w.inputs, w.few());
    CHECK(ids.text(0).empty() && ids.ids(0).size() > 0);
    // handles that end in their own calls
    pg::generate_options options = w.few();
    int n_seen = 0;
    options.on_text = [&](int64_t, std::string_view, int64_t) {
        second.reset();
        n_seen++;
    };
    CHECK(pg::generate(second, w.processor, w.inputs, options).n_rows() == 1 && n_seen > 1);
    std::optional<pg::session> session;
    pg::session_options session_options;
    session_options.progress = [&, text = std::string(100, 'x')](int32_t, int64_t, int64_t) {
        session.reset();
        CHECK(text.size() == 100); // the closure lives on
    };
    session = pg::session::create(w.model, session_options);
    session_options = pg::session_options();
    fails([&] { session->prefill(w.inputs); });
    CHECK(!session);
}

void test_spans() {
    std::vector<int> numbers = {1, 2, 3};
    const std::array<int, 2> fixed = {4, 5};
    int plain[] = {6};
    pg::span<int> own = numbers;
    const pg::span<const int> constant = own, of_array = fixed, of_plain = plain, none;
    own[0] = 9;
    CHECK(constant[0] == 9 && of_array.back() == 5 && of_plain.front() == 6 && none.empty());
    static_assert(!std::is_constructible_v<pg::span<int>, const std::vector<int> &>, "const stays const");
    static_assert(!std::is_constructible_v<pg::span<const int64_t>, std::vector<int> &>, "no other numbers");
    static_assert(!std::is_constructible_v<pg::span<const int>, std::vector<int>>, "it would be gone");
    static_assert(std::is_constructible_v<pg::span<const int>, pg::span<int>>, "a view may end");
    static_assert(!std::is_constructible_v<pg::zstring, std::string_view>, "it may have no NUL");
}

void test_threads(const world &w) {
    const pg::result first = pg::generate(w.model, w.processor, w.inputs, w.few());
    const std::string_view alone = first.text(0);
    std::vector<std::thread> threads;
    std::atomic<int> n_right{0};
    for (int i = 0; i < 4; i++)
        threads.emplace_back([&, i] {
            pg::generate_options options = w.few();
            options.n_threads = 1;
            if (i % 2) options.on_text = bomb(i);
            try {
                const pg::result answer = pg::generate(w.model, w.processor, w.inputs, options);
                n_right += answer.text(0) == alone && i % 2 == 0;
            } catch (const deliberate &thrown) {
                n_right += thrown.number == i;
            }
        });
    for (std::thread &thread : threads) thread.join();
    CHECK(n_right == 4);
}

} // namespace

int main() {
    cpp_files files;
    cpp_files_make(&files);
    try {
        const world w(files);
        every_call(w);
        test_errors(w);
        test_throwing_per_call(w);
        test_throwing_in_handles(w);
        test_memory(w);
        test_nested(w);
        test_moves(w);
        test_spans();
        test_threads(w);
    } catch (const std::exception &e) {
        std::fprintf(stderr, "found an exception, expected none: %s\n", e.what());
        n_failed++;
    }
    n_failed += test_returning(&files);
    cpp_files_remove(&files);
    std::printf("%d failed\n", n_failed);
    return n_failed > 0;
}
