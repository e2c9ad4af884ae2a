// SPDX-License-Identifier: Apache-2.0
// What store_posix.c and store_posix_list.c share. Nobody else includes it.
#ifndef ORRERY_STORAGE_STORE_POSIX_H
#define ORRERY_STORAGE_STORE_POSIX_H

#include "storage/store_backend.h"

bool store_posix_component_ok(const char *c, size_t n); // may this be a part of a key?
// Every file below root whose key starts with the prefix, in pages, sorted bytewise. Returns as `page` does.
int store_posix_walk(const char *root, const char *prefix, store_page_fn *page, void *arg,
                     struct err *e) ERR_CHECK;

#endif
