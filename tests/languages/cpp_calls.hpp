/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Every function of paligemma.hpp once, for both kinds of errors: what it gives is what the C function gives. */
#ifndef TESTS_CPP_CALLS_HPP
#define TESTS_CPP_CALLS_HPP

#include <paligemma/paligemma.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "cpp_files.h"

namespace { // each program has its own, of its own kind of errors

namespace pg = paligemma;

int n_failed = 0;

inline void check(bool right, const char *text, int line) {
    if (right) return;
    n_failed++;
    std::fprintf(stderr, "line %d: not so: %s\n", line, text);
}
#define CHECK(condition) check((condition), #condition, __LINE__)

#ifdef PALIGEMMA_NO_EXCEPTIONS
template <class T>
T take(pg::outcome<T> &&given) {
    if (!given) {
        std::fprintf(stderr, "a call failed: %s\n", given.error().what());
        std::exit(1);
    }
    return std::move(*given);
}
inline void done(const pg::outcome<void> &given) {
    if (given) return;
    std::fprintf(stderr, "a call failed: %s\n", given.error().what());
    std::exit(1);
}
#else
template <class T>
T take(T &&given) {
    return std::forward<T>(given);
}
#define done(call) call
#endif

/** What the calls below are made with. */
struct world {
    explicit world(const cpp_files &paths)
        : files(paths),
          picture(std::string(paths.model) + "/image.png"),
          model(take(pg::model::open(paths.model))),
          processor(take(pg::processor::open(paths.model))),
          image(take(pg::image::from_path(picture))),
          inputs(take(processor.encode(image, "the cat"))) {}
    pg::inputs labelled() const {
        const char *const prompts[] = {"the"}, *const suffixes[] = {"cat in"};
        pg::batch rows;
        rows.set_prompts(prompts);
        rows.set_suffixes(suffixes);
        rows.set_images(pg::span<const pg::image>(&image, 1));
        return take(processor.encode_batch(rows));
    }
    pg::generate_options few() const {
        pg::generate_options options;
        options.max_new_tokens = 4;
        options.n_threads = 2;
        return options;
    }
    const cpp_files &files;
    const std::string picture;
    pg::model model;
    pg::processor processor;
    pg::image image;
    pg::inputs inputs;
};

inline void call_version() {
    CHECK(pg::version_api() == pg_version_api());
    CHECK(pg::version_string() == pg_version_string());
    CHECK(pg::version_compatible());
    CHECK(pg::status_name(PG_ERROR_LIMIT) == "PG_ERROR_LIMIT");
}

inline void call_model(const world &w) {
    const pg_model_info info = take(w.model.info());
    CHECK(info.gemma_version == 1 && info.vocab_size > 0);
    const std::string config = take(w.model.config());
    CHECK(!config.empty() && config.find("text_config") != std::string::npos && config.back() == '}');
    CHECK(take(w.model.config("text_config.hidden_size")) == "32");
    const int64_t hidden = take(w.model.config_int("text_config.hidden_size"));
    CHECK(hidden == 32);
    CHECK(take(w.model.config_float("text_config.rms_norm_eps")) > 0);
    CHECK(take(w.model.sampling()).top_k == 50);
    CHECK(take(w.model.memory(100, 1)).kv_cache > 0);
    const std::vector<int64_t> ids = {5, 6};
    std::vector<float> embedded(static_cast<std::size_t>(2 * hidden), 0.f);
    done(w.model.embed(ids, embedded));
    CHECK(embedded[0] != 0);
    const pg::adapter adapter = take(pg::adapter::open(w.model, w.files.adapter));
    const pg_adapter_info about = take(adapter.info());
    CHECK(about.rank == 3);
    const pg::model adapted = take(w.model.adapt({{adapter, 0.5f}}));
    const pg::result answer = take(pg::generate(adapted, w.processor, w.inputs, w.few()));
    CHECK(answer.n_rows() == 1);
    CHECK(!take(pg::checkpoint_config(w.files.model)).empty());
    CHECK(take(pg::find_checkpoint(w.files.model)) == w.files.model);
}

inline void call_processor(const world &w) {
    CHECK(take(w.processor.info()).n_image_tokens > 0);
    pg_image_settings settings = take(w.processor.image_settings());
    settings.resample = PG_RESAMPLE_NEAREST;
    pg::encode_options options;
    options.image_settings = &settings;
    const pg::inputs nearest = take(w.processor.encode(w.image, "the", options));
    const pg::tensor pixels = take(nearest.get("pixel_values"));
    CHECK(pixels.n_dims == 4 && pixels.dims()[1] == 3 && take(pixels.as<float>()).size() == pixels.size());
    const std::vector<int64_t> ids = take(w.processor.tokenize("the cat"));
    CHECK(!ids.empty() && take(w.processor.decode(ids)) == "the cat");
    CHECK(take(w.processor.tokenize("")).empty());
    const int64_t eos = take(w.processor.token_id("<eos>"));
    CHECK(take(w.processor.piece(eos)) == "<eos>");
    CHECK(take(w.processor.token_flags(eos)) & PG_TOKEN_SPECIAL);
    const pg::inputs text = take(w.processor.encode("the cat"));
    CHECK(take(text.row_info(0)).n_tokens == take(w.inputs.row_info(0)).n_tokens);
    const std::vector<int64_t> own = {2, 5, 6};
    const pg::tensor own_ids = take(pg::tensor::of(pg::span<const int64_t>(own), {1, 3}));
    pg::input_arrays arrays;
    arrays.input_ids = &own_ids;
    const pg::inputs copied = take(pg::inputs::create(arrays));
    const auto back = take(take(copied.get("input_ids")).as<int64_t>());
    CHECK(std::vector<int64_t>(back.begin(), back.end()) == own);
    std::vector<uint8_t> buffer(8 * 8 * 3, 100);
    const pg::image camera = take(pg::image::from_pixels(PG_IMAGE_BGR8, 8, 8, buffer));
    CHECK(take(w.processor.encode(camera, "the")).get() != nullptr);
    const void *const planes[] = {buffer.data(), buffer.data() + 64};
    pg::image frame = take(pg::image::from_planes(PG_IMAGE_NV12, 8, 8, planes));
    frame.fit = PG_FIT_LETTERBOX;
    CHECK(frame.strides[0] == 8 && frame.strides[1] == 8);
    CHECK(take(w.processor.encode(frame, "the")).get() != nullptr);
    const pg_window window = take(frame.window(16, 8));
    CHECK(window.x == -4 && window.y == 0 && window.width == 16 && window.height == 8);
    pg::detokenizer pieces = take(pg::detokenizer::create(w.processor));
    std::string all;
    for (const int64_t id : ids) all += take(pieces.push(id));
    all += take(pieces.flush());
    CHECK(all == "the cat");
}

inline void call_generate(const world &w) {
    std::string streamed;
    int64_t n_done = 0, n_masks = 0, n_logits = 0;
    pg::sampling_options sampling = take(w.model.sampling());
    const std::vector<int64_t> never = {7};
    sampling.set_suppressed_ids(never);
    sampling.on_mask = [&](int64_t, pg::span<const int64_t>, pg::span<uint32_t> mask, int64_t) {
        for (uint32_t &word : mask) word = UINT32_MAX;
        n_masks++;
    };
    sampling.on_logits = [&](int64_t, pg::span<const int64_t> ids, pg::span<float> logits) {
        CHECK(!ids.empty() && logits.size() > 100);
        logits[8] = -INFINITY;
        n_logits++;
        return pg::flow::go_on;
    };
    pg::generate_options options = w.few();
    options.flags = PG_GENERATE_LOG_PROBS;
    options.sampling = &sampling;
    options.on_text = [&](int64_t row, std::string_view text, int64_t) {
        CHECK(row == 0);
        streamed += text;
    };
    options.progress = [&](int32_t, int64_t reached, int64_t) { n_done += reached; };
    const pg::result answer = take(pg::generate(w.model, w.processor, w.inputs, options));
    CHECK(answer.n_rows() == 1 && answer.text(0) == streamed && answer.text(1).empty());
    CHECK(n_done > 0 && n_masks > 0 && n_logits > 0);
    const auto ids = take(take(answer.ids(0)).as<int64_t>());
    const auto log_probs = take(take(answer.get(0, "log_probs")).as<float>());
    CHECK(ids.size() == log_probs.size() && static_cast<int64_t>(ids.size()) == take(answer.info(0)).n_new_tokens);
    for (const int64_t id : ids) CHECK(id != 7 && id != 8);
    // a stop is no error
    options.on_text = [](int64_t, std::string_view, int64_t) { return pg::flow::stop; };
    CHECK(take(take(pg::generate(w.model, w.processor, w.inputs, options)).info(0)).stop == PG_STOP_CALLBACK);
    // beams, with the texts that end
    pg::beam_options beams;
    beams.n_beams = 2;
    int n_texts = 0;
    beams.on_texts = [&](int64_t, pg::span<const int64_t>, pg::span<uint8_t> ends) {
        n_texts++;
        ends[0] = 1;
    };
    pg::generate_options search = w.few();
    search.beams = &beams;
    CHECK(take(pg::generate(w.model, w.processor, w.inputs, search)).n_rows() == 1 && n_texts > 0);

    const char *const answers[] = {"cat", "the"};
    const pg::scores scores = take(pg::score(w.model, w.processor, w.inputs, answers));
    CHECK(scores.n_answers() == 2);
    CHECK(std::fabs(take(scores.info(0)).probability + take(scores.info(1)).probability - 1) < 1e-9);
    const auto scored = take(take(scores.get(0, "ids")).as<int64_t>());
    const std::vector<int64_t> sizes = {static_cast<int64_t>(scored.size())};
    const pg::scores again = take(pg::score_ids(w.model, w.inputs, scored, sizes));
    CHECK(take(again.info(0)).log_prob == take(scores.info(0)).log_prob);
}

inline void call_answers(const world &w) {
    const char *text =
        "<loc0000><loc0000><loc0512><loc0512><seg000><seg001><seg002><seg003><seg004><seg005><seg006>"
        "<seg007><seg008><seg009><seg010><seg011><seg012><seg013><seg014><seg015> cat";
    const pg::answer_options size(40, 30);
    const pg::answer answer = take(pg::answer::create_from_text(text, size));
    CHECK(answer.n_objects() == 1 && answer.text() == text);
    const pg_object object = take(answer.object(0));
    CHECK(std::string(object.label) == "cat" && object.n_segs == 16 && object.box[2] == 20.f);
    const pg::mask_decoder decoder = take(pg::mask_decoder::open(w.files.masks));
    std::vector<float> decoded(64 * 64, -9.f);
    done(decoder.decode(pg::span<const int32_t>(object.segs, 16), decoded));
    CHECK(decoded[5] != -9.f);
    const std::vector<uint8_t> mask = take(answer.mask(0, decoder));
    std::vector<uint8_t> into(mask.size());
    done(answer.mask(0, decoder, into));
    CHECK(mask.size() == 40 * 30 && mask == into);
    CHECK(!take(pg::mask_counts(mask, 40, 30)).empty() && !take(pg::mask_rle(mask, 40, 30)).empty());
    const std::vector<int64_t> ids = take(w.processor.tokenize(text));
    const std::vector<float> log_probs(ids.size(), -0.5f);
    const pg::answer scored = take(pg::answer::create_from_ids(w.processor, ids, log_probs, size));
    CHECK(take(scored.object(0)).loc_score > 0.6f);
    const pg::result result = take(pg::generate(w.model, w.processor, w.inputs, w.few()));
    CHECK(take(pg::answer::create(w.processor, result, 0, size)).n_objects() >= 0);
}

inline void call_forward(const world &w) {
    const pg::inputs labelled = w.labelled();
    const pg::outputs outputs = take(pg::forward(w.model, labelled));
    CHECK(take(take(outputs.get("loss")).as<float>())[0] > 0);
    const pg::tensor logits = take(outputs.get("logits"));
    CHECK(logits.n_dims == 3 && logits.dims()[0] == 1);

    const pg::features features = take(pg::features::create(w.model, w.inputs));
    const pg::tensor values = take(features.values());
    const std::vector<uint8_t> bytes = take(features.to_bytes());
    std::vector<uint8_t> into(bytes.size());
    CHECK(take(features.to_bytes(into)) == bytes.size() && into == bytes);
    const std::string path = std::string(w.files.work) + "/features";
    done(features.save(path));
    for (const pg::features &again :
         {take(pg::features::load(w.model, path)), take(pg::features::from_bytes(w.model, bytes)),
          take(pg::features::from_tensor(w.model, values))})
        CHECK(take(take(again.values()).as<float>())[3] == take(values.as<float>())[3]);

    const pg::inputs prompt = take(w.processor.encode("the cat"));
    pg::generate_options options = w.few();
    options.features = features.get();
    const pg::result given = take(pg::generate(w.model, w.processor, prompt, options));
    const pg::result computed = take(pg::generate(w.model, w.processor, w.inputs, w.few()));
    CHECK(given.text(0) == computed.text(0));

    pg::session session = take(pg::session::create(w.model));
    done(session.prefill(prompt, features));
    const auto ids = take(take(computed.ids(0)).as<int64_t>());
    const pg::step first = take(session.step());
    CHECK(first.token == ids[0]);
    CHECK(take(session.logits()).n_dims == 1);
    done(session.prefill(w.inputs));
    CHECK(take(session.sample()).token == ids[0]);
    pg::sampling_options sampling;
    sampling.flags = PG_SAMPLING_RANDOM;
    CHECK(take(session.sample(sampling)).token.has_value());
    const std::vector<int64_t> fed = {5};
    done(session.feed(fed));
    sampling.on_logits = [](int64_t, pg::span<const int64_t>, pg::span<float>) { return pg::flow::stop; };
    const pg::step stopped = take(session.sample(sampling));
    CHECK(stopped.event == PG_EVENT_STOP && !stopped.token);
}

inline void call_training(const world &w) {
    const pg::inputs labelled = w.labelled();
    pg::trainer_options options;
    options.target_modules = "q_proj";
    options.rank = 2;
    options.n_threads = 1;
    pg::trainer trainer = take(pg::trainer::create(w.model, options));
    const double before = take(trainer.evaluate(labelled)).loss;
    CHECK(take(trainer.step(labelled)).updated == 1 && before > 0);
    CHECK(take(trainer.n_updates()) == 1);
    CHECK(take(trainer.count_parameters()) > 0);
    const pg::parameter parameter = take(trainer.parameter(0));
    CHECK(parameter.n_dims == 2 && parameter.values().size() == parameter.gradients().size());
    const std::string folder = std::string(w.files.work) + "/trained";
    done(trainer.save(folder));
    CHECK(take(take(pg::trainer::resume(w.model, folder, options)).n_updates()) == 1);
    CHECK(take(pg::adapter::find_base(folder)).find('/') != std::string::npos);
    cpp_remove_folder(folder.c_str());

    pg::calibration calibration = take(pg::calibration::create(w.model));
    done(calibration.add(w.inputs));
    const std::string sums = std::string(w.files.work) + "/sums";
    done(calibration.save(sums, 7));
    const pg::calibration loaded = take(pg::calibration::load(w.model, sums, 7));
    CHECK(take(loaded.n_rows()) == 1);
    const std::string converted = std::string(w.files.work) + "/converted";
    pg::convert_options convert;
    convert.weights = PG_WEIGHTS_INT4;
    convert.calibration = loaded.get();
    int64_t n_lines = 0, n_bytes = 0;
    convert.log = [&](int32_t, std::string_view line) { n_lines += !line.empty(); };
    convert.progress = [&](int32_t, int64_t, int64_t total) { n_bytes = total; };
    done(pg::convert(w.files.model, converted, convert));
    CHECK(n_lines > 0 && n_bytes > 0);
    CHECK(take(take(pg::model::open(converted)).info()).weights == PG_WEIGHTS_INT4);
    cpp_remove_folder(converted.c_str());
    const char *const adapters[] = {w.files.adapter};
    pg::convert_options merge;
    merge.weights = PG_WEIGHTS_STORED;
    merge.set_adapters(adapters);
    done(pg::convert(w.files.model, converted, merge));
    cpp_remove_folder(converted.c_str());
}

inline void every_call(const world &w) {
    call_version();
    call_model(w);
    call_processor(w);
    call_generate(w);
    call_answers(w);
    call_forward(w);
    call_training(w);
}

} // namespace

#endif
