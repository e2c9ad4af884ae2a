// SPDX-License-Identifier: Apache-2.0
#include "trainer/eval_deal.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "comm/grid.h"

#define BYTES_MAX ((size_t)2 << 30)

static int take_blocks(double **out, int64_t items, int64_t block_elems, struct err *e) {
    size_t bytes;
    if (!bytes_mul((size_t)items, (size_t)block_elems, &bytes) || !bytes_mul(bytes, sizeof(double), &bytes) ||
        bytes > BYTES_MAX)
        return err_set(e, ERR_CONFIG,
                       "evaluation would need more than 2 GiB for its records; lower eval.sequences "
                       "or eval.horizon");
    *out = calloc(bytes ? bytes : 1, 1);
    return *out ? 0 : err_set(e, ERR_MEMORY, "no memory for evaluation records (%zu bytes)", bytes);
}

// Pieces of all ranks stand one after the other, each as long as the longest; closes the gaps.
static void close_gaps(const double *pieces, int64_t items, int size, int64_t most, int64_t block_elems,
                       double *all) {
    for (int r = 0; r < size; r++) {
        int64_t lo, hi;
        grid_split(items, size, r, &lo, &hi);
        memcpy(all + lo * block_elems, pieces + r * most * block_elems,
               sizeof(double) * (size_t)((hi - lo) * block_elems));
    }
}

int eval_deal(struct coll *coll, const char *name, int64_t items, int64_t block_elems, eval_deal_fn *fn,
              void *arg, double **all, struct err *e) {
    int size = coll ? coll_size(coll) : 1, rank = coll ? coll_rank(coll) : 0;
    int64_t lo, hi, most = (items + size - 1) / size;
    double *own = NULL, *pieces = NULL;
    *all = NULL;
    int rc = take_blocks(&own, most, block_elems, e);
    if (!rc) rc = take_blocks(&pieces, most * size, block_elems, e);
    if (!rc) rc = take_blocks(all, items, block_elems, e);
    if (rc) goto out;
    grid_split(items, size, rank, &lo, &hi);
    for (int64_t i = lo; i < hi && !rc; i++) rc = fn(arg, i, own + (i - lo) * block_elems, e);
    if (rc) goto out;
    size_t bytes = sizeof(double) * (size_t)(most * block_elems);
    if (coll)
        rc = coll_gather_all(coll, name, own, bytes, pieces, e);
    else
        memcpy(pieces, own, bytes);
    if (!rc) close_gaps(pieces, items, size, most, block_elems, *all);
out:
    free(own);
    free(pieces);
    if (rc) {
        free(*all);
        *all = NULL;
    }
    return rc;
}
