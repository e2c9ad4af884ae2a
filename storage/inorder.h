// SPDX-License-Identifier: Apache-2.0
// Jobs that are worked on several at a time, each in a thread of its own, and finished one after the other in
// the order in which they were given: what comes of it does not depend on timing. At most `width` jobs exist
// at once. Thread rule: one thread gives and finishes.
#ifndef ORRERY_STORAGE_INORDER_H
#define ORRERY_STORAGE_INORDER_H

#include <pthread.h>
#include <stdint.h>

#include "base/err.h"

#define INORDER_MAX 16

struct inorder {
    int width; // 1 .. INORDER_MAX
    void (*work)(void *job);
    int (*finish)(void *arg, void *job, struct err *e); // not after one that was not 0
    void (*drop)(void *job);                            // of every job, last of all
    void *arg;
    // Its own.
    pthread_t threads[INORDER_MAX];
    void *jobs[INORDER_MAX];
    int64_t given, finished;
    int rc; // of the first finish that was not 0
};

// Takes the job, also when it fails. Waits for the oldest one while `width` are there. Returns what a finish
// returned that was not 0.
int inorder_give(struct inorder *o, void *job, struct err *e) ERR_CHECK;
// Waits for all. To be called in any case; finishes no more when `rc` is not 0. Returns rc, or as above.
int inorder_end(struct inorder *o, int rc, struct err *e) ERR_CHECK;

#endif
