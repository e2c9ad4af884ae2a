// SPDX-License-Identifier: Apache-2.0
// Instructions that move data asynchronously, and products.
#ifndef ORRERY_TESTS_PTX_ASYNC_H
#define ORRERY_TESTS_PTX_ASYNC_H

#include "tests/ptx/module.h"

void ptx_async_instructions(void (*add)(const char *name, ptx_do *run));

#endif
