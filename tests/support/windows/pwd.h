/* Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0 */
/* In lacks.h. */
#include "lacks.h"
