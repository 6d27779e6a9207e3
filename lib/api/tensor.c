/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* pg_tensor: what the getters fill. */
#include "api/structs.h"

PGI_OPTIONS(pg_tensor, .struct_size = sizeof(pg_tensor), .n_dims = 1, .shape = {0, 1, 1, 1})
