// SPDX-License-Identifier: Apache-2.0
#include "comm/grid.h"

int grid_init(struct grid *g, int world, int cp, int tp, int pp, struct err *e) {
    if (world < 1 || cp < 1 || tp < 1 || pp < 1)
        return err_set(e, ERR_CONFIG, "world %d, cp %d, tp %d, pp %d: each must be at least 1", world, cp, tp,
                       pp);
    int64_t model = (int64_t)cp * tp; // cannot overflow; the third factor could
    if (model > world || model * pp > world || world % (model * pp) != 0)
        return err_set(
            e, ERR_CONFIG,
            "%d ranks cannot be divided into cp %d x tp %d x pp %d: start a multiple of their product, "
            "or change comm.cp, comm.tp, comm.pp",
            world, cp, tp, pp);
    *g = (struct grid){.world = world, .dp = (int)(world / (model * pp)), .cp = cp, .tp = tp, .pp = pp};
    return 0;
}

struct grid_place grid_place_of(const struct grid *g, int rank) {
    struct grid_place p;
    p.tp = rank % g->tp;
    rank /= g->tp;
    p.cp = rank % g->cp;
    rank /= g->cp;
    p.dp = rank % g->dp;
    p.pp = rank / g->dp;
    return p;
}

int grid_rank_of(const struct grid *g, struct grid_place p) {
    return ((p.pp * g->dp + p.dp) * g->cp + p.cp) * g->tp + p.tp;
}

int grid_check_shards(int64_t shards, int64_t ranks, struct err *e) {
    if (shards >= ranks) return 0;
    return err_set(
        e, ERR_CONFIG,
        "comm.shards %lld is less than the %lld ranks, and each needs at least one: start fewer ranks, "
        "or raise comm.shards (for a new run: it changes the numbers)",
        (long long)shards, (long long)ranks);
}

void grid_split(int64_t n, int parts, int part, int64_t *lo, int64_t *hi) {
    int64_t each = n / parts, longer = n % parts;
    *lo = part * each + (part < longer ? part : longer);
    *hi = *lo + each + (part < longer);
}

void grid_share(const int64_t *offset, int parts, int64_t lo, int64_t hi, int64_t *share) {
    for (int p = 0; p <= parts; p++) {
        int64_t at = offset[p];
        share[p] = (at < lo ? lo : at > hi ? hi : at) - lo;
    }
}
