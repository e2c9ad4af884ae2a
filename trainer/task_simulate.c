// SPDX-License-Identifier: Apache-2.0
// simulate.h as a task of orrery-rank.
#include "trainer/rank.h"
#include "trainer/simulate.h"
#include "trainer/task.h"

static bool simulate_rank_stop(void *arg) {
    return rank_stop_asked(arg);
}

static int simulate_rank_meet(void *arg, int64_t *v, struct err *e) {
    struct rank *r = arg;
    return coll_max_i64(r->coll, "simulate: all shards", v, 1, e);
}

int task_simulate(struct rank *r, struct err *e) {
    struct simulate_team team = {
        .rank = r->number,
        .world = r->world,
        .store = &r->store,
        .log = &r->log,
        .box = r->box,
        .stop = simulate_rank_stop,
        .meet = simulate_rank_meet,
        .arg = r,
    };
    return simulate_run(r->config, &team, e);
}
