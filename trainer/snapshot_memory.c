// SPDX-License-Identifier: Apache-2.0
// The copy in the node's memory: each rank puts its part of a save beside its black box, in the job's private
// folder in /dev/shm, before it goes to the store. A restart inside the same job reads from there what it
// finds there, and the rest from the store. The launcher removes the folder when the job ends. Without room,
// or without a launcher, there is no such copy, and nothing fails for want of it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "trainer/snapshot_impl.h"

#define STEP_DIGITS 12 // of a save's id
#define COPIES      3  // of each rank on the node: one complete, one being written, room for others

static bool wanted(const struct snapshot *s) {
    int how = s->rank->config->checkpoint_memory;
    return how == CONFIG_checkpoint_memory_on ||
           (how == CONFIG_checkpoint_memory_auto && store_is_remote(s->rank->ckpt_url));
}

// For all ranks of the node, which keep copies of about the same size.
static bool has_room(const struct snapshot *s) {
    struct statvfs room;
    double need = (double)s->copy_elems * sizeof(float) * COPIES * (double)rank_local_world();
    return !statvfs("/dev/shm", &room) && (double)room.f_bavail * (double)room.f_frsize >= need;
}

// Where the folder is there, room was found for all.
void snapshot_memory_open(struct snapshot *s) {
    const char *box = getenv("ORRERY_BLACKBOX"), *slash = box ? strrchr(box, '/') : NULL;
    struct err ignored = {ERR_OK};
    char folder[512];
    if (!slash || !wanted(s) || strncmp(box, "/dev/shm/", 9)) return;
    if ((size_t)snprintf(folder, sizeof folder, "%.*s/ckpt", (int)(slash - box), box) >= sizeof folder)
        return;
    if (access(folder, F_OK) && !has_room(s)) {
        log_warn(&s->rank->log,
                 "/dev/shm has no room for copies of the checkpoints: restarts will read the store");
        return;
    }
    if (store_open(&s->memory, folder, NULL, &ignored)) s->memory = NULL;
}

void snapshot_memory_write(struct snapshot *s) {
    struct err why = {ERR_OK};
    struct buf part;
    if (!s->memory) return;
    buf_init(&part, SNAPSHOT_PART_MAX);
    if (ckpt_write_part(s->memory, s->id, s->rank->number, s->tensors, s->n_tensors, &part, &why))
        blackbox_event(s->rank->box, "no copy of checkpoint %s in memory: %s", s->id, why.text);
    buf_fini(&part);
}

struct keeping {
    struct store *memory;
    const char *id;
};

// Ranks of the node do so at once: a file that is gone is no error.
static int drop_earlier(void *arg, const struct store_entry *o, struct err *e) {
    const struct keeping *k = arg;
    bool later = strncmp(o->key, k->id, STEP_DIGITS) > 0, same = !strncmp(o->key, k->id, strlen(k->id));
    return later || same ? 0 : store_delete(k->memory, o->key, e);
}

// What saves of earlier steps have left, and other saves of this one. A later step's files may be another
// rank's, which is ahead. What cannot be deleted is met again at the next save.
void snapshot_memory_keep(struct snapshot *s, const char *id) {
    struct err ignored = {ERR_OK};
    struct keeping k = {s->memory, id};
    if (s->memory && store_each(s->memory, "", NULL, drop_earlier, &k, &ignored)) err_clear(&ignored);
}

int snapshot_memory_use(struct snapshot *s, struct ckpt *c, struct err *e) {
    size_t files;
    if (!s->memory) return 0;
    int rc = ckpt_use_nearby(c, s->memory, &files, e);
    if (!rc && files && rank_is_root(s->rank))
        log_info(&s->rank->log, "checkpoint %s: %zu of its files are read from this node's memory",
                 ckpt_id(c), files);
    return rc;
}
