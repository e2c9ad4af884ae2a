// SPDX-License-Identifier: Apache-2.0
// Work dealt out to ranks in items whose results are blocks of doubles: whoever computes an item, every rank
// gets all blocks in item order. What is then added in that order does not depend on the number of ranks.
#ifndef ORRERY_TRAINER_EVAL_DEAL_H
#define ORRERY_TRAINER_EVAL_DEAL_H

#include <stdint.h>

#include "base/err.h"
#include "comm/coll.h"

// Fills `block` (zeroed) with the result of one item.
typedef int eval_deal_fn(void *arg, int64_t item, double *block, struct err *e);

// *all: [items, block_elems], the caller frees. coll NULL: this process does everything. Collective. CONFIG
// when the blocks together would need more than 2 GiB.
int eval_deal(struct coll *coll, const char *name, int64_t items, int64_t block_elems, eval_deal_fn *fn,
              void *arg, double **all, struct err *e) ERR_CHECK;

#endif
