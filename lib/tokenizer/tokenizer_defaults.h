/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* Sides and lengths of padding and truncation that a tokenizer's files set. */
#ifndef PGI_TOKENIZER_TOKENIZER_DEFAULTS_H
#define PGI_TOKENIZER_TOKENIZER_DEFAULTS_H

#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_json.h"

/* Fills *out, whose sides are set to those of the tokenizer's class. config: tokenizer_config.json, NULL: none. The
 * paths are for messages. PG_ERROR_FORMAT names the file and the key. */
pg_status pgi_tokenizer_defaults_read(const char *config_path, const pgi_json *config_object, const char *json_path,
                                      const pgi_tokenizer_json *json, pgi_tokenizer_defaults *out);

#endif
