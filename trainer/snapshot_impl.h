// SPDX-License-Identifier: Apache-2.0
// The inside of a snapshot, shared by snapshot.c and snapshot_resume.c only.
#ifndef ORRERY_TRAINER_SNAPSHOT_IMPL_H
#define ORRERY_TRAINER_SNAPSHOT_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "trainer/snapshot.h"

enum snapshot_stage { STAGE_IDLE, STAGE_WRITING, STAGE_COMMITTING };

struct snapshot {
    struct rank *rank;
    struct model *model;
    struct optim *optim;
    struct fault *fault;
    const struct params *params;
    struct store *store, *memory; // memory: the node's copies, NULL where there are none
    int64_t newest;
    uint32_t owner; // rank 0: of this run's saves

    // The copy of this rank's tensors, and their list.
    float *copy;
    int64_t copy_elems;
    struct ckpt_tensor *tensors;
    char (*names)[CKPT_NAME_MAX + 1];
    size_t n_tensors, tensors_max;

    // Of the save under way: what its step waited for the copy, and in all.
    double copy_s, stall_s;

    // One save. While `running`, the thread owns part, state and thread_err; afterwards the main thread does.
    enum snapshot_stage stage;
    pthread_t thread;
    bool running;
    atomic_bool ended;
    int thread_rc;
    struct err thread_err;
    struct err retain_err; // why old checkpoints are still there; not the save's own failure
    int64_t retain_failures;
    char id[CKPT_ID_BYTES];
    bool full_disk; // fault injection: this save fails
    struct ckpt_state *state;
    struct buf part;
    char *parts; // rank 0, committing: all ranks' JSON, part_bytes apart
    size_t part_bytes;
};

#define SNAPSHOT_PART_MAX ((size_t)64 << 20) // of one part's JSON

void snapshot_memory_open(struct snapshot *s);
void snapshot_memory_write(struct snapshot *s);
void snapshot_memory_keep(struct snapshot *s, const char *id);
int snapshot_memory_use(struct snapshot *s, struct ckpt *c, struct err *e) ERR_CHECK;

#endif
