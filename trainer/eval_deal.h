// SPDX-License-Identifier: Apache-2.0
// Deals numbered items out to the ranks and gathers their blocks of doubles: whoever computes an item, every
// rank gets all blocks in item order. What is then added in that order does not depend on the number of
// ranks.
#ifndef ORRERY_TRAINER_EVAL_DEAL_H
#define ORRERY_TRAINER_EVAL_DEAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/blackbox.h"
#include "base/err.h"
#include "comm/coll.h"

// Who is told how far it is, and who may end it early.
struct eval_watch {
    struct blackbox *box;          // NULL: none
    bool (*stop_asked)(void *arg); // of this rank; NULL: never
    void *arg;
};

// Fills `block` (zeroed) with the result of one item.
typedef int eval_deal_fn(void *arg, int64_t item, double *block, struct err *e);

struct eval_deal {
    struct coll *coll; // NULL: this process does everything
    struct eval_watch watch;
    const char *name;    // of the collective, static
    const char *of;      // what is counted: "sequences"
    int64_t count, each; // so many of them, `each` an item
    int64_t block_elems;
    eval_deal_fn *fn;
    void *arg;
};
int64_t eval_deal_items(const struct eval_deal *d);
// CONFIG: the blocks together, dealt out to so many ranks, would need more than 2 GiB.
int eval_deal_check(const struct eval_deal *d, struct err *e) ERR_CHECK;

// *all: [items, block_elems], the caller frees. Collective: before every round of items, one for each rank,
// all ranks agree whether any of them was asked to stop. SAVED: one was. Errors as
// eval_deal_check's.
int eval_deal_run(const struct eval_deal *d, double **all, struct err *e) ERR_CHECK;

#endif
