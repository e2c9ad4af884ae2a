// SPDX-License-Identifier: Apache-2.0
// One rank: what every task of orrery-rank starts from. Opened by main, handed down; owns all it points to.
// Thread rule: the main thread, but for blackbox_event.
#ifndef ORRERY_TRAINER_RANK_H
#define ORRERY_TRAINER_RANK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/blackbox.h"
#include "base/config.h"
#include "base/err.h"
#include "base/log.h"
#include "comm/coll.h"
#include "comm/grid.h"
#include "kernels/device.h"
#include "storage/store_config.h"
#include "trainer/fault.h"

struct rank {
    struct config_file *file;
    const struct config *config; // resolved; borrowed from file
    struct grid grid;
    struct grid_place place;
    int number, world; // 0 .. world-1
    int attempt;       // ORRERY_ATTEMPT, 1 without a launcher
    bool force;        // goes on although keys of data or numbers are not the checkpoint's; main sets it
    struct device *device;
    struct coll *coll;
    struct blackbox *box; // ORRERY_BLACKBOX; works without one
    struct log log;       // prefix "rank N: "
    char run_dir[CONFIG_TEXT_BYTES];
    char ckpt_url[STORE_CONFIG_URL_BYTES]; // checkpoint.url, or run_dir/ckpt
    struct store_options store;            // from the config's store section
    int signal_fd;                         // -1: signals do what they always do
    bool stop_asked;
};

// Before rank_open: from now on SIGTERM, SIGINT, SIGUSR1 and SIGUSR2 only make rank_stop_asked true, in every
// thread that starts later.
int rank_take_signals(struct rank *r, struct err *e) ERR_CHECK;
// `task` goes into the black box; `alone`: one process, no MPI. Takes `file` over, also on failure. Grids
// with tp, cp or pp above 1 are refused here; ABSENT when device is cuda and there is none. The caller zeroes
// *r and sets signal_fd to -1 first.
int rank_open(struct rank *r, struct config_file *file, const char *task, bool alone,
              struct err *e) ERR_CHECK;
// `failed`: tears the job down without waiting for peers.
void rank_close(struct rank *r, bool failed);

// Do ranks on GPUs move their gradients through NCCL? `peers`: there are others.
bool rank_talks_by_nccl(const struct config *c, bool peers);

// Ranks on this host, as Open MPI tells; 1 where it does not.
int64_t rank_local_world(void);

static inline bool rank_is_root(const struct rank *r) {
    return r->number == 0;
}

// A sign of life, as ckpt_tell calls it while a checkpoint is read.
static inline void rank_touch(void *rank) {
    blackbox_touch(((struct rank *)rank)->box);
}

// Does what a rehearsed fault wants of the collectives.
void rank_slip(struct rank *r, enum fault_action action);

// True once one of those signals has come to this process. Tasks let all ranks agree on it.
bool rank_stop_asked(struct rank *r);

#endif
