// SPDX-License-Identifier: Apache-2.0
// Threads that run the blocking calls of file:, mem: and fault: stores behind store_start.
#include <stdlib.h>

#include "storage/store_backend.h"

struct store_pool {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct store_request *first, **last; // queue, oldest first
    bool ending;
    int n;
    pthread_t threads[];
};

static struct store_request *pool_take(struct store_pool *p) {
    pthread_mutex_lock(&p->lock);
    while (!p->first && !p->ending) pthread_cond_wait(&p->work, &p->lock);
    struct store_request *r = p->first;
    if (r) {
        p->first = r->next;
        if (!p->first) p->last = &p->first;
    }
    pthread_mutex_unlock(&p->lock);
    return r;
}

static void *pool_run(void *arg) {
    struct store_pool *p = arg;
    for (struct store_request *r; (r = pool_take(p));)
        store_finish(r, store_perform(r->store, &r->call, &r->result, &r->err));
    return NULL;
}

int store_pool_create(struct store_pool **out, int threads, struct err *e) {
    struct store_pool *p = calloc(1, sizeof *p + (size_t)threads * sizeof p->threads[0]);
    if (!p) return err_set(e, ERR_MEMORY, "no memory for %d store threads", threads);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    p->last = &p->first;
    while (p->n < threads && !pthread_create(&p->threads[p->n], NULL, pool_run, p)) p->n++;
    if (!p->n) {
        store_pool_destroy(p);
        return err_set(e, ERR_MEMORY, "no thread can be started for a store (limit on processes?)");
    }
    *out = p;
    return 0;
}

void store_pool_destroy(struct store_pool *p) {
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->ending = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n; i++) pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

void store_pool_submit(struct store_pool *p, struct store_request *r) {
    pthread_mutex_lock(&p->lock);
    r->next = NULL;
    *p->last = r;
    p->last = &r->next;
    pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->lock);
}
