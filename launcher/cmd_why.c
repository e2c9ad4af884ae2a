// SPDX-License-Identifier: Apache-2.0
// orrery why RUN: where every rank is or was, and the verdict on what failed.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launcher/opts.h"
#include "launcher/why.h"

#define TEXT_BYTES (8 << 20)

// An error that the verdict's cause quotes stands there alone, not with every rank that met it.
static const char *error_of(const struct why *w, const struct blackbox_page *p) {
    return strstr(w->verdict.cause, p->err_text) ? VERDICT_CAUSE : p->err_text;
}

static void print_ranks(const struct why *w) {
    printf("%5s  %-16s %8s %8s  %-11s %9s  %s\n", "RANK", "HOST", "PID", "STEP", "PHASE", "FOR", "AT");
    for (int i = 0; i < w->n; i++) {
        const struct blackbox_page *p = &w->pages[i];
        double since = 1e-9 * (double)(w->now_ns - p->phase_since_ns);
        printf("%5d  %-16s %8d %8lld  %-11s %8.1fs  %s", p->rank, p->host, p->pid, (long long)p->step,
               blackbox_phase_name((enum blackbox_phase)p->phase), since, p->place);
        if (watch_waits(p))
            printf(" waits in %s (collective %lld)", p->coll_name, (long long)p->coll_waiting);
        if (p->err_code) printf(" error: %s", error_of(w, p));
        printf("\n");
    }
}

// Before the verdict: how it bears on what is now.
static const char *verdict_head(const struct why *w, bool ended_well) {
    if (ended_well)
        return w->has_verdict ? "nothing failed in the end; before it recovered:\n" : "nothing failed\n";
    return w->has_verdict && w->live ? "earlier: " : "";
}

static int print_people(struct why *w, const struct rundir *run, struct err *e) {
    struct buf text;
    const char *state = w->live ? "running" : w->record.state;
    // A supervisor that was killed had no time to write how it ended.
    if (!w->live && !strcmp(state, "running")) state = "interrupted: its supervisor was killed";
    printf("%s (%s): %s, attempt %lld, %lld rank%s\n", run->given, w->record.id, state,
           (long long)w->record.attempt, (long long)w->record.ranks, w->record.ranks == 1 ? "" : "s");
    if (w->n) print_ranks(w);
    if (w->unread[0]) printf("not read: %s\n", w->unread);
    bool ended_well = !w->live && (!strcmp(w->record.state, "done") || !strcmp(w->record.state, "saved"));
    buf_init(&text, TEXT_BYTES);
    int rc = w->has_verdict ? verdict_text(&w->verdict, &text, e) : 0;
    if (!rc) printf("%s%s", verdict_head(w, ended_well), text.len ? text.data : "");
    if (!rc && !ended_well && w->comparison[0])
        printf("%s: %s\n", w->live ? "now" : "at the end", w->comparison);
    buf_fini(&text);
    return rc;
}

static void put_rank(struct json_writer *j, const struct why *w, const struct blackbox_page *p) {
    json_put_object(j, NULL);
    json_put_int(j, "rank", p->rank);
    json_put_string(j, "host", p->host);
    json_put_int(j, "pid", p->pid);
    json_put_int(j, "attempt", p->attempt);
    json_put_int(j, "step", p->step);
    json_put_string(j, "phase", blackbox_phase_name((enum blackbox_phase)p->phase));
    json_put_double(j, "seconds_in_phase", 1e-9 * (double)(w->now_ns - p->phase_since_ns));
    json_put_double(j, "seconds_silent", 1e-9 * (double)(w->now_ns - p->heartbeat_ns));
    json_put_string(j, "place", p->place);
    json_put_bool(j, "waits", watch_waits(p));
    json_put_int(j, "collective", p->coll_seq);
    json_put_string(j, "collective_name", p->coll_name);
    json_put_double(j, "loss", p->loss);
    json_put_int(j, "checkpoint_step", p->checkpoint_step);
    json_put_string(j, "error", p->err_code ? p->err_text : "");
    json_close(j, '}');
}

static int print_json(const struct why *w, struct err *e) {
    struct buf text;
    struct json_writer j;
    buf_init(&text, TEXT_BYTES);
    json_begin(&j, &text);
    json_put_object(&j, NULL);
    json_put_string(&j, "id", w->record.id);
    json_put_string(&j, "state", w->record.state);
    json_put_bool(&j, "live", w->live);
    json_put_int(&j, "attempt", w->record.attempt);
    json_put_string(&j, "comparison", w->comparison);
    json_put_string(&j, "unread", w->unread);
    json_put_array(&j, "ranks");
    for (int i = 0; i < w->n; i++) put_rank(&j, w, &w->pages[i]);
    json_close(&j, ']');
    if (w->has_verdict) {
        json_put_object(&j, "verdict");
        verdict_json(&w->verdict, &j);
        json_close(&j, '}');
    } else {
        json_put_null(&j, "verdict");
    }
    json_close(&j, '}');
    int rc = json_end(&j, e);
    if (!rc) printf("%s\n", text.data);
    buf_fini(&text);
    return rc;
}

int cmd_why(const struct cmd *self, int argc, char **argv, struct err *e) {
    bool as_json = false;
    const struct opt table[] = {{"json", 0, OPT_FLAG, NULL, "as JSON", &as_json, 0, 0}};
    struct opts_rest rest;
    struct rundir run;
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 1, 1, &rest, e);
    if (rc || rest.help) return rc;
    struct why *w = calloc(1, sizeof *w);
    if (!w) return err_set(e, ERR_MEMORY, "no memory");
    rc = rundir_open(&run, rest.words[0], false, e);
    if (!rc) rc = why_read(w, &run, e);
    if (!rc) rc = as_json ? print_json(w, e) : print_people(w, &run, e);
    why_fini(w);
    free(w);
    return rc;
}
