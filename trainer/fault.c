// SPDX-License-Identifier: Apache-2.0
#include "trainer/fault.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"

#define PIECE_BYTES 64

struct kind_row {
    const char *name;
    enum fault_kind kind;
    int phase; // default; -1: any
};

static const struct kind_row kind_rows[] = {
    {"kill", FAULT_KILL, -1},
    {"exit", FAULT_EXIT, -1},
    {"segv", FAULT_SEGV, -1},
    {"stop", FAULT_STOP, -1},
    {"spin", FAULT_SPIN, -1},
    {"nan", FAULT_POISON, PHASE_FORWARD},
    {"slow", FAULT_SLOW, -1},
    {"enospc", FAULT_FULL, PHASE_CHECKPOINT},
    {"store", FAULT_STORE, -1},
    {"skip-collective", FAULT_SKIP, PHASE_COLLECTIVE},
    {"mismatch", FAULT_OTHER, PHASE_COLLECTIVE},
};

// A rule while it is read, with the selectors that decide whether it concerns this process.
struct draft {
    struct fault_rule rule;
    int64_t rank;    // -1: any
    int64_t attempt; // -1: any
    char store[2 * PIECE_BYTES + 2];
};

static int parse_slow(const char *value, struct fault_rule *r, struct err *e) {
    char number[PIECE_BYTES];
    size_t n = strspn(value, "0123456789.");
    double amount;
    snprintf(number, sizeof number, "%.*s", (int)n, value);
    if (!bytes_parse_f64(number, &amount) || (strcmp(value + n, "ms") != 0 && strcmp(value + n, "x") != 0))
        return err_set(e, ERR_CONFIG,
                       "fault.inject: slow needs a time or a factor, slow=20ms or slow=1.5x, not '%s'",
                       value);
    if (value[n] == 'x' && (amount < 1 || amount > 1000))
        return err_set(e, ERR_CONFIG, "fault.inject: slow=%s: the factor must be between 1 and 1000", value);
    if (value[n] == 'm' && amount > 3600e3)
        return err_set(e, ERR_CONFIG, "fault.inject: slow=%s: at most an hour", value);
    if (value[n] == 'x')
        r->slow_factor = amount;
    else
        r->slow_ns = (int64_t)(amount * 1e6);
    return 0;
}

static int parse_kind(const char *name, const char *value, struct fault_rule *r, struct err *e) {
    int64_t code;
    const struct kind_row *row = NULL;
    for (size_t i = 0; i < sizeof kind_rows / sizeof *kind_rows; i++)
        if (!strcmp(name, kind_rows[i].name)) row = &kind_rows[i];
    if (!row)
        return err_set(e, ERR_CONFIG,
                       "fault.inject: unknown kind '%s'; one of kill, exit=CODE, segv, stop, spin, nan, "
                       "enospc, skip-collective, mismatch, slow=20ms, store=503:5%%",
                       name);
    r->kind = row->kind;
    r->phase = row->phase;
    if (r->kind == FAULT_STORE) return 0;
    if (r->kind == FAULT_SLOW) return parse_slow(value, r, e);
    if (r->kind != FAULT_EXIT)
        return *value ? err_set(e, ERR_CONFIG, "fault.inject: '%s' takes no value", name) : 0;
    if (!bytes_parse_i64(value, &code) || code < 0 || code > 255)
        return err_set(e, ERR_CONFIG, "fault.inject: exit needs a code from 0 to 255, exit=7, not '%s'",
                       value);
    r->exit_code = (int)code;
    return 0;
}

static int parse_phase(const char *value, struct fault_rule *r, struct err *e) {
    for (int p = 0; p < PHASE_COUNT; p++) {
        if (!strcmp(value, blackbox_phase_name((enum blackbox_phase)p))) {
            r->phase = p;
            return 0;
        }
    }
    return err_set(e, ERR_CONFIG,
                   "fault.inject: unknown phase '%s'; e.g. data, forward, backward, collective", value);
}

static int parse_selector(const char *name, const char *value, struct draft *d, struct err *e) {
    int64_t *into = NULL;
    if (!strcmp(name, "phase")) return parse_phase(value, &d->rule, e);
    if (!strcmp(name, "rank")) into = &d->rank;
    if (!strcmp(name, "step")) into = &d->rule.step;
    if (!strcmp(name, "attempt")) into = &d->attempt;
    if (!into)
        return err_set(e, ERR_CONFIG,
                       "fault.inject: unknown selector '%s'; one of rank, step, phase, attempt", name);
    if (into == &d->attempt && !strcmp(value, "any")) {
        d->attempt = -1;
        return 0;
    }
    if (!bytes_parse_i64(value, into) || *into < 0)
        return err_set(e, ERR_CONFIG, "fault.inject: %s needs a number, not '%s'", name, value);
    return 0;
}

// Copies [*at, first of `stops`) into out and moves *at to the stop.
static int take_piece(const char **at, const char *stops, char out[PIECE_BYTES], struct err *e) {
    size_t n = strcspn(*at, stops);
    if (n >= PIECE_BYTES) return err_set(e, ERR_CONFIG, "fault.inject: '%.40s...' is too long", *at);
    memcpy(out, *at, n);
    out[n] = 0;
    *at += n;
    return 0;
}

static int take_pair(const char **at, char name[PIECE_BYTES], char value[PIECE_BYTES], struct err *e) {
    value[0] = 0;
    int rc = take_piece(at, "=:,;", name, e);
    if (rc || **at != '=') return rc;
    (*at)++;
    return take_piece(at, ":,;", value, e);
}

// "503:5%" of store=503:5%. What kinds and rates there are is the store's to say.
static int parse_store(const char *kind, const char **at, struct draft *d, struct err *e) {
    char rate[PIECE_BYTES] = "";
    int rc = 0;
    if (**at == ':') {
        (*at)++;
        rc = take_piece(at, "=:,;", rate, e);
    }
    size_t n = strlen(rate);
    if (!rc && (!*kind || n < 2 || rate[n - 1] != '%'))
        rc =
            err_set(e, ERR_CONFIG,
                    "fault.inject: store needs a kind and a rate, store=503:5%% or store=delay:20ms@5%%, not "
                    "'store=%s:%s'",
                    kind, rate);
    snprintf(d->store, sizeof d->store, "%s=%s", kind, rate);
    return rc;
}

static int keep(struct fault *f, const struct draft *d, int rank, struct err *e) {
    size_t used = strlen(f->store);
    if (d->rule.kind == FAULT_STORE) {
        int n = snprintf(f->store + used, sizeof f->store - used, "%s%s", used ? "," : "", d->store);
        return (size_t)n < sizeof f->store - used
                   ? 0
                   : err_set(e, ERR_CONFIG, "fault.inject: too many store faults for rank %d", rank);
    }
    if (f->n == FAULT_RULES)
        return err_set(e, ERR_CONFIG, "fault.inject: more than %d faults for rank %d", FAULT_RULES, rank);
    f->rules[f->n++] = d->rule;
    return 0;
}

static int parse_fault(const char **at, struct draft *d, struct err *e) {
    char name[PIECE_BYTES], value[PIECE_BYTES];
    *d = (struct draft){.rule = {.step = -1, .phase = -1}, .rank = -1, .attempt = 1};
    int rc = take_pair(at, name, value, e);
    if (!rc) rc = parse_kind(name, value, &d->rule, e);
    if (!rc && d->rule.kind == FAULT_STORE) rc = parse_store(value, at, d, e);
    while (!rc && (**at == ':' || **at == ',')) {
        (*at)++;
        rc = take_pair(at, name, value, e);
        if (!rc) rc = parse_selector(name, value, d, e);
    }
    return rc;
}

int fault_init(struct fault *f, const char *spec, int rank, int world, int attempt, struct err *e) {
    memset(f, 0, sizeof *f);
    f->last_step = -1;
    while (*spec) {
        struct draft d;
        int rc = parse_fault(&spec, &d, e);
        if (rc) return rc;
        // In another attempt there may be other ranks.
        if (d.attempt == attempt && d.rank >= world)
            return err_set(e, ERR_CONFIG, "fault.inject: there is no rank %lld to fail, only 0 to %d",
                           (long long)d.rank, world - 1);
        bool ours = (d.rank < 0 || d.rank == rank) && (d.attempt < 0 || d.attempt == attempt);
        if (ours) rc = keep(f, &d, rank, e);
        if (rc) return rc;
        if (*spec == ';') spec++;
    }
    return 0;
}

int fault_store_url(const struct fault *f, const char *url, char *out, size_t room, struct err *e) {
    int n = *f->store && *url ? snprintf(out, room, "fault:%s:%s", f->store, url)
                              : snprintf(out, room, "%s", url);
    return n >= 0 && (size_t)n < room ? 0 : err_set(e, ERR_CONFIG, "the URL '%.60s...' is too long", url);
}

static void die_by(int signal_number) {
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void spin(void) {
    volatile uint64_t turns = 0;
    for (;;) turns = turns + 1;
}

// A new step began: by a factor, sleeps for its share of the step before.
static void slow_down(struct fault *f, const struct fault_rule *r, int64_t step) {
    int64_t now = clock_monotonic_ns();
    int64_t sleep_ns = r->slow_ns;
    if (r->slow_factor > 1 && f->last_step >= 0)
        sleep_ns = (int64_t)((r->slow_factor - 1) * (double)(now - f->step_began_ns));
    clock_sleep_ms((sleep_ns + 500000) / 1000000);
    f->last_step = step;
    f->step_began_ns = clock_monotonic_ns();
}

static enum fault_action act(const struct fault_rule *r) {
    switch (r->kind) {
    case FAULT_KILL: die_by(SIGKILL); break;
    case FAULT_SEGV: die_by(SIGSEGV); break;
    case FAULT_STOP: raise(SIGSTOP); break;
    case FAULT_EXIT: _exit(r->exit_code);
    case FAULT_SPIN: spin(); break;
    case FAULT_POISON: return FAULT_NAN;
    case FAULT_FULL: return FAULT_ENOSPC;
    case FAULT_SKIP: return FAULT_SKIP_COLLECTIVE;
    case FAULT_OTHER: return FAULT_MISMATCH;
    case FAULT_SLOW:
    case FAULT_STORE: break;
    }
    return FAULT_NONE;
}

enum fault_action fault_at(struct fault *f, int64_t step, enum blackbox_phase phase) {
    enum fault_action action = FAULT_NONE;
    for (int i = 0; i < f->n; i++) {
        struct fault_rule *r = &f->rules[i];
        bool here = (r->step < 0 || r->step == step) && (r->phase < 0 || r->phase == (int)phase);
        if (!here || r->spent) continue;
        if (r->kind == FAULT_SLOW) {
            if (step != f->last_step) slow_down(f, r, step);
            continue;
        }
        r->spent = true;
        enum fault_action wanted = act(r);
        if (wanted) action = wanted;
    }
    return action;
}
