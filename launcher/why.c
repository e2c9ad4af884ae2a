// SPDX-License-Identifier: Apache-2.0
#include "launcher/why.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "launcher/boxdir.h"
#include "launcher/watch.h"

#define EVENTS_TAIL (1 << 18)
#define RANKS_MAX   4096

static void take_verdict(struct why *w, const char *line, size_t n) {
    struct json *doc = NULL;
    struct err bad = {0};
    if (json_parse(&doc, line, n, "events.jsonl", &bad)) return;
    if (!strcmp(json_string_or(json_root(doc), "event", ""), "verdict")) {
        verdict_from_json(&w->verdict, json_root(doc));
        w->has_verdict = true;
    }
    json_destroy(doc);
}

// The end of events.jsonl, line by line; a line that is cut or broken is skipped.
static void read_events(struct why *w, const struct rundir *run) {
    char path[RUNDIR_PATH_BYTES + 16];
    struct stat st;
    char *text = malloc(EVENTS_TAIL + 1);
    snprintf(path, sizeof path, "%s/events.jsonl", run->path);
    int fd = text ? open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
    ssize_t n = 0;
    if (fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode))
        n = pread(fd, text, EVENTS_TAIL, st.st_size > EVENTS_TAIL ? st.st_size - EVENTS_TAIL : 0);
    if (fd >= 0) close(fd);
    if (text) text[n > 0 ? n : 0] = 0;
    bytes_blank_nul(text, n > 0 ? (size_t)n : 0);
    for (char *line = text; line && *line;) {
        size_t len = strcspn(line, "\n");
        if (line[len]) take_verdict(w, line, len);
        line += len + (line[len] == '\n');
    }
    free(text);
}

// What a rank is at; false when there is no box of it, or none that can be read, which is noted.
static bool read_box(struct why *w, const char *folder, int rank, struct blackbox_page *out) {
    char path[RUNDIR_PATH_BYTES + 64];
    struct blackbox *box = NULL;
    struct err bad = {0};
    snprintf(path, sizeof path, "%s/rank-%d.box", folder, rank);
    int rc = blackbox_open(&box, path, &bad);
    if (!rc) blackbox_read(box, out);
    if (!rc && out->rank != rank)
        rc = err_set(&bad, ERR_DATA, "%s says that it is of rank %d", path, out->rank);
    blackbox_close(box);
    if (rc && bad.code != ERR_MISSING && !w->unread[0]) snprintf(w->unread, sizeof w->unread, "%s", bad.text);
    return !rc;
}

static int read_boxes(struct why *w, const char *folder, struct err *e) {
    int64_t ranks = w->record.ranks;
    int world = ranks < 1 ? 1 : ranks > RANKS_MAX ? RANKS_MAX : (int)ranks;
    w->pages = calloc((size_t)world, sizeof *w->pages);
    if (!w->pages) return err_set(e, ERR_MEMORY, "no memory for %d black boxes", world);
    for (int r = 0; r < world; r++)
        if (read_box(w, folder, r, &w->pages[w->n])) w->n++;
    return 0;
}

// Who waits, and who keeps them waiting. A rank whose box is not there leaves a gap among the pages.
static void compare(struct why *w) {
    char ranks[200], place[192];
    bool waits[RANKS_MAX] = {false}; // by rank
    int waiting = 0, first = -1, late = -1;
    size_t used = 0;
    for (int i = 0; i < w->n; i++) {
        const struct blackbox_page *p = &w->pages[i], *then = late < 0 ? NULL : &w->pages[late];
        bool in_wait = watch_waits(p);
        waits[p->rank] = in_wait;
        waiting += in_wait;
        if (in_wait && first < 0) first = i;
        bool later = !then || p->coll_seq < then->coll_seq ||
                     (p->coll_seq == then->coll_seq && !in_wait && watch_waits(then));
        if (later) late = i;
    }
    if (late < 0) return;
    if (waiting && waiting < w->n) {
        watch_ranks_text(waits, RANKS_MAX, ranks, sizeof ranks);
        used = (size_t)snprintf(w->comparison, sizeof w->comparison,
                                "rank%s %s wait%s in %s (collective %lld); ", waiting > 1 ? "s" : "", ranks,
                                waiting > 1 ? "" : "s", w->pages[first].coll_name,
                                (long long)w->pages[first].coll_waiting);
    }
    watch_place(&w->pages[late], w->now_ns, place, sizeof place);
    snprintf(w->comparison + used, sizeof w->comparison - used, "%s %d: %s",
             waiting ? "behind is rank" : "rank", w->pages[late].rank, place);
}

static void find_now(struct why *w) {
    w->now_ns = clock_monotonic_ns();
    if (w->live || !w->n) return;
    w->now_ns = w->pages[0].heartbeat_ns;
    for (int i = 1; i < w->n; i++)
        if (w->pages[i].heartbeat_ns > w->now_ns) w->now_ns = w->pages[i].heartbeat_ns;
}

int why_read(struct why *w, const struct rundir *run, struct err *e) {
    char saved[RUNDIR_PATH_BYTES + 16];
    struct err none = {0};
    memset(w, 0, sizeof *w);
    w->has_record = !rundir_read_record(run, &w->record, &none);
    if (!w->has_record && none.code != ERR_MISSING) return err_set(e, none.code, "%s", none.text);
    if (!w->has_record) return err_set(e, ERR_MISSING, "%s is no run folder: it has no run.json", run->given);
    w->live = rundir_is_held(run);
    read_events(w, run);
    snprintf(saved, sizeof saved, "%s/blackbox", run->path);
    bool in_memory = w->live && boxdir_is_ours(w->record.box_path);
    int rc = read_boxes(w, in_memory ? w->record.box_path : saved, e);
    if (rc) return rc;
    find_now(w);
    compare(w);
    return 0;
}

void why_fini(struct why *w) {
    free(w->pages);
    w->pages = NULL;
    w->n = 0;
}
