// SPDX-License-Identifier: Apache-2.0
// Between film.c (boxes as they go by) and film_moov.c (what the header says).
#ifndef ORRERY_STORAGE_FILM_IMPL_H
#define ORRERY_STORAGE_FILM_IMPL_H

#include "storage/film.h"

uint32_t film_be32(const unsigned char *p);
uint64_t film_be64(const unsigned char *p);
// The moov box's content, of a file of so many bytes. DATA: why there is no table.
int film_parse(const unsigned char *moov, size_t n, int64_t file_bytes, struct film_table *out,
               struct err *e) ERR_CHECK;

#endif
