// SPDX-License-Identifier: Apache-2.0
// Shards: WebDataset tar files. A sample is a run of members that share a stem ("ep000012.video.npy": stem
// "ep000012", name "video.npy"). Writing into memory; reading is dataset.h's (a tar is scanned once, to index
// it).
#ifndef ORRERY_STORAGE_SHARD_H
#define ORRERY_STORAGE_SHARD_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

// Appends one member (ustar header, pax header for a long name) to the tar in `out`. Fixed owner, mode and
// time, so that the same members give the same bytes.
int shard_append(struct buf *out, const char *stem, const char *name, const void *data, size_t bytes,
                 struct err *e) ERR_CHECK;
int shard_finish(struct buf *out, struct err *e) ERR_CHECK; // two zero blocks

#endif
