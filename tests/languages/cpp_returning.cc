/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* paligemma.hpp without exceptions and without RTTI: every call, and errors as values. */
#include "cpp_calls.hpp"

#ifndef PALIGEMMA_NO_EXCEPTIONS
#error this part is compiled with -fno-exceptions
#endif

namespace {

template <class T>
bool fails(const pg::outcome<T> &given, pg_status status) {
    return !given && !given.has_value() && given.error().status() == status && given.error().what()[0] != 0;
}

void test_outcomes(const world &w) {
    CHECK(fails(pg::model::open("/nowhere/at/all"), PG_ERROR_NOT_FOUND));
    CHECK(fails(w.inputs.get("nothing"), PG_ERROR_NOT_FOUND));
    CHECK(fails(take(w.inputs.get("input_ids")).as<float>(), PG_ERROR_ARGUMENT));
    CHECK(fails(w.processor.encode(w.image, "a\xff"), PG_ERROR_ARGUMENT));
    CHECK(fails(pg::convert("/nowhere/at/all", w.files.work), PG_ERROR_NOT_FOUND));
    CHECK(fails(pg::model().info(), PG_ERROR_ARGUMENT));
    std::vector<float> few(3);
    const std::vector<int64_t> ids = {5};
    CHECK(fails(w.model.embed(ids, few), PG_ERROR_ARGUMENT));
    const char *const prompts[] = {"the", "a\xff"};
    pg::batch rows;
    rows.set_prompts(prompts);
    const auto encoded = w.processor.encode_batch(rows);
    CHECK(fails(encoded, PG_ERROR_ARGUMENT) && encoded.error().row() == 1);

    auto opened = pg::model::open(w.files.model);
    CHECK(opened.has_value() && opened->info()->gemma_version == 1);
    const pg::model moved = *std::move(opened);
    CHECK(static_cast<bool>(moved));
    pg::generate_options stopped = w.few();
    stopped.progress = [](int32_t, int64_t, int64_t) { return pg::flow::stop; };
    CHECK(fails(pg::generate(w.model, w.processor, w.inputs, stopped), PG_ERROR_CANCELLED));
    auto flag = take(pg::cancel_flag::create());
    pg::generate_options cancelled = w.few();
    cancelled.cancel = flag.get();
    flag.request();
    CHECK(fails(pg::generate(w.model, w.processor, w.inputs, cancelled), PG_ERROR_CANCELLED));
}

} // namespace

int test_returning(const cpp_files *files) {
    const world w(*files);
    every_call(w);
    test_outcomes(w);
    return n_failed;
}
