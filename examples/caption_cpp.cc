/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Streams what a model says about an image: caption_cpp MODEL IMAGE [PROMPT] */
#include <iostream>
#include <stdexcept>

#include <paligemma/paligemma.hpp>

int main(int argc, char **argv) {
    if (argc != 3 && argc != 4) {
        std::cerr << "usage: caption_cpp MODEL IMAGE [PROMPT]\n";
        return 1;
    }
    try {
        const auto model = paligemma::model::open(argv[1]);
        const auto processor = paligemma::processor::open(argv[1]);
        paligemma::encode_options upright;
        upright.flags = PG_ENCODE_EXIF; // photos of phones
        const auto image = paligemma::image::from_path(argv[2]);
        const auto inputs = processor.encode(image, argc == 4 ? argv[3] : "caption en", upright);
        paligemma::generate_options options;
        options.on_text = [](int64_t, std::string_view text, int64_t) {
            if (!(std::cout << text << std::flush)) // what is thrown here comes out of generate()
                throw std::runtime_error("standard output is lost");
        };
        paligemma::generate(model, processor, inputs, options);
        std::cout << std::endl;
    } catch (const std::exception &e) {
        std::cerr << "caption_cpp: " << e.what() << '\n';
        return 1;
    }
    return 0;
}
