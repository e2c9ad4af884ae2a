// SPDX-License-Identifier: Apache-2.0
#include "storage/inorder.h"

#include <stdlib.h>

struct start {
    void (*work)(void *job);
    void *job;
};

static void *run(void *arg) {
    struct start s = *(struct start *)arg;
    free(arg);
    s.work(s.job);
    return NULL;
}

static void finish_oldest(struct inorder *o, struct err *e) {
    int at = (int)(o->finished++ % o->width);
    pthread_join(o->threads[at], NULL);
    if (!o->rc) o->rc = o->finish(o->arg, o->jobs[at], e);
    o->drop(o->jobs[at]);
}

static int start(struct inorder *o, void *job, struct err *e) {
    int at = (int)(o->given % o->width);
    struct start *s = malloc(sizeof *s);
    if (!s) return err_set(e, ERR_MEMORY, "no memory for a thread");
    *s = (struct start){o->work, job};
    int failed = pthread_create(&o->threads[at], NULL, run, s);
    if (failed) {
        free(s);
        return err_errno(e, failed, "cannot start a thread");
    }
    o->jobs[at] = job;
    o->given++;
    return 0;
}

int inorder_give(struct inorder *o, void *job, struct err *e) {
    if (o->given - o->finished == o->width) finish_oldest(o, e);
    int rc = o->rc ? o->rc : start(o, job, e);
    if (rc) o->drop(job);
    return rc;
}

int inorder_end(struct inorder *o, int rc, struct err *e) {
    if (!o->rc) o->rc = rc;
    while (o->finished < o->given) finish_oldest(o, e);
    return o->rc;
}
