// SPDX-License-Identifier: Apache-2.0
// `orrery doctor --hosts`: a probe on every host (doctor_probe.c), asked side by side, each step with a
// deadline for all.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/process.h"
#include "launcher/doctor_ask.h"
#include "launcher/doctor_impl.h"
#include "launcher/strv.h"

#define FACTS_MS  15000
#define TIME_MS   1000
#define PEERS_MS  8000
#define PINGS     3
#define SKEW_WARN 0.1
#define SKEW_BAD  300.0

struct meeting {
    const struct doctor_hosts_options *o;
    doctor_each_fn *each;
    void *arg;
    struct doctor_ask *list;
    int n;
    int bad;
};

static void tell(struct meeting *m, const char *host, struct doctor_finding *f) {
    snprintf(f->host, sizeof f->host, "%s", host);
    m->bad += f->grade == DOCTOR_BAD;
    m->each(m->arg, f);
}

// ---- what an answer holds

static int64_t until(int ms) {
    return clock_monotonic_ns() + (int64_t)ms * 1000000;
}

// ---- step 1: every host by itself

static int command_of(struct buf *out, struct err *e) {
    char self[4096];
    struct strv words = {0};
    const char *rank = getenv("ORRERY_RANK_PROGRAM");
    int rc = process_path(self, sizeof self, e);
    if (!rc) rc = strv_add(&words, "env", e);
    if (!rc && rank) rc = strv_addf(&words, e, "ORRERY_RANK_PROGRAM=%s", rank);
    const char *const tail[] = {self, "doctor", "--probe"};
    if (!rc) rc = strv_add_all(&words, tail, 3, e);
    if (!rc) rc = strv_quote(&words, out, e);
    strv_fini(&words);
    return rc;
}

static int start_all(struct meeting *m, struct err *e) {
    struct buf command, config;
    char head[48];
    buf_init(&command, 65536);
    buf_init(&config, 1 << 20);
    int rc = command_of(&command, e);
    if (!rc && m->o->config) rc = config_write(m->o->config, &config, e);
    snprintf(head, sizeof head, "config %zu\n", config.len);
    for (int i = 0; i < m->n && !rc; i++) rc = doctor_ask_start(&m->list[i], m->o->agent, command.data, e);
    for (int i = 0; i < m->n && !rc; i++)
        if (doctor_ask(&m->list[i], head, strlen(head)))
            (void)doctor_ask(&m->list[i], config.data, config.len);
    buf_fini(&command);
    buf_fini(&config);
    return rc;
}

static void tell_silence(struct meeting *m, const struct doctor_ask *p) {
    struct doctor_finding f = {.name = "answers"};
    bool absent = strstr(p->said, "No such file") || strstr(p->said, "not found");
    doctor_say(&f, "orrery does not answer there%s%.280s", p->said[0] ? ": " : "", p->said);
    if (absent)
        doctor_cure(&f, DOCTOR_BAD, ERR_UNAVAILABLE,
                    "install Orrery at the same path on every host, or share the folder (%s %s ls -l)",
                    m->o->agent, p->name);
    else
        doctor_cure(
            &f, DOCTOR_BAD, ERR_UNAVAILABLE,
            "'%s %s true' must work without a password (ssh-copy-id %s), or name another launch.agent",
            m->o->agent, p->name, p->name);
    tell(m, p->name, &f);
}

// What is good is counted, the rest is told.
static void tell_facts(struct meeting *m, struct doctor_ask *p) {
    const struct json_value *rows = json_get(json_root(p->facts), "findings");
    int good = 0;
    for (size_t i = 0; i < json_size(rows); i++) {
        const struct json_value *row = json_at(rows, i);
        struct doctor_finding f = {.name = doctor_known(json_string_or(row, "check", ""))};
        int64_t grade = json_int_or(row, "grade", 0), code = json_int_or(row, "code", 0);
        snprintf(f.text, sizeof f.text, "%s", json_string_or(row, "finding", ""));
        snprintf(f.cure, sizeof f.cure, "%s", json_string_or(row, "cure", ""));
        f.grade = grade == DOCTOR_WARN ? DOCTOR_WARN : grade == DOCTOR_GOOD ? DOCTOR_GOOD : DOCTOR_BAD;
        f.code = code > 0 && code < ERR_COUNT ? (enum err_code)code : ERR_OK;
        good += f.grade == DOCTOR_GOOD;
        if (f.grade != DOCTOR_GOOD) tell(m, p->name, &f);
    }
    struct doctor_finding f = {.name = "answers"};
    doctor_say(&f, "calls itself %s; %d of %zu checks of its own are good", p->host, good, json_size(rows));
    tell(m, p->name, &f);
}

static void hear_facts(struct meeting *m) {
    int64_t until_ns = until(FACTS_MS);
    for (int i = 0; i < m->n; i++) {
        struct doctor_ask *p = &m->list[i];
        p->facts = doctor_ask_answer(p, until_ns);
        const struct json_value *o = json_root(p->facts);
        p->port = json_int_or(o, "port", 0);
        p->token = json_string_or(o, "token", "");
        p->host = json_string_or(o, "host", "");
        if (p->facts && strlen(p->token) == DOCTOR_TOKEN_BYTES)
            tell_facts(m, p);
        else
            tell_silence(m, p);
    }
}

// ---- step 2: are they alike?

static const char *finding_of(const struct doctor_ask *p, const char *check) {
    const struct json_value *rows = json_get(json_root(p->facts), "findings");
    for (size_t i = 0; i < json_size(rows); i++)
        if (!strcmp(json_string_or(json_at(rows, i), "check", ""), check))
            return json_string_or(json_at(rows, i), "finding", "");
    return "";
}

static void tell_unlike(struct meeting *m, const struct doctor_ask *p, const struct doctor_ask *first,
                        const char *what, const char *here, const char *there, bool bad) {
    struct doctor_finding f = {.name = "alike"};
    doctor_say(&f, "%s differs: %.120s here, %.120s on %.60s", what, here, there, first->name);
    doctor_cure(&f, bad ? DOCTOR_BAD : DOCTOR_WARN, ERR_UNAVAILABLE,
                "install the same on every host, or share one folder between them");
    tell(m, p->name, &f);
}

static int compare(struct meeting *m, const struct doctor_ask *p, const struct doctor_ask *first) {
    static const struct {
        const char *check;
        bool bad;
    } rows[] = {
        {"mpirun", true}, {"orrery-rank", true}, {"PMIx", false}, {"NCCL", true}, {"CUDA plug-in", true}};
    const struct json_value *a = json_root(p->facts), *b = json_root(first->facts);
    int unlike = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *here = finding_of(p, rows[i].check), *there = finding_of(first, rows[i].check);
        if (!strcmp(here, there)) continue;
        tell_unlike(m, p, first, rows[i].check, here, there, rows[i].bad);
        unlike++;
    }
    if (!unlike && strcmp(json_string_or(a, "rank_crc32c", ""), json_string_or(b, "rank_crc32c", "")) != 0) {
        tell_unlike(m, p, first, "the build of orrery-rank (CRC32C)", json_string_or(a, "rank_crc32c", ""),
                    json_string_or(b, "rank_crc32c", ""), true);
        unlike++;
    }
    if (strcmp(json_string_or(a, "orrery", ""), json_string_or(b, "orrery", "")) != 0) {
        tell_unlike(m, p, first, "orrery", json_string_or(a, "orrery", ""), json_string_or(b, "orrery", ""),
                    true);
        unlike++;
    }
    if (!strcmp(p->host, first->host)) {
        struct doctor_finding f = {.name = "alike"};
        doctor_say(&f, "calls itself %s, as %s does", p->host, first->name);
        doctor_cure(&f, DOCTOR_WARN, ERR_OK,
                    "two names of one machine? else give each its own: hostnamectl set-hostname");
        tell(m, p->name, &f);
        unlike++;
    }
    return unlike;
}

static struct doctor_ask *first_here(const struct meeting *m) {
    for (int i = 0; i < m->n; i++)
        if (m->list[i].facts) return &m->list[i];
    return NULL;
}

static void compare_all(struct meeting *m) {
    const struct doctor_ask *first = first_here(m);
    int unlike = 0, seen = 0;
    for (int i = 0; i < m->n; i++) {
        if (!m->list[i].facts) continue;
        if (&m->list[i] != first) unlike += compare(m, &m->list[i], first);
        seen++;
    }
    struct doctor_finding f = {.name = "alike"};
    doctor_say(&f, "%d hosts have the same orrery-rank, bit for bit, mpirun, PMIx and NCCL", seen);
    if (!unlike && seen > 1) tell(m, "", &f);
}

// ---- step 3: clocks

static void ask_time(struct doctor_ask *p) {
    p->doubt_s = INFINITY;
    for (int i = 0; i < PINGS; i++) {
        int64_t sent = clock_utc_ns();
        struct json *doc = doctor_ask(p, "time\n", 5) ? doctor_ask_answer(p, until(TIME_MS)) : NULL;
        int64_t back = clock_utc_ns(), theirs = json_int_or(json_root(doc), "time_ns", 0);
        double doubt = 0.5e-9 * (double)(back - sent);
        if (doc && theirs && doubt < p->doubt_s) {
            p->doubt_s = doubt;
            p->skew_s = 1e-9 * (double)(theirs - sent) - doubt;
        }
        json_destroy(doc);
    }
}

static void compare_clocks(struct meeting *m) {
    double most = 0, doubt = 0;
    int wrong = 0, seen = 0;
    for (int i = 0; i < m->n; i++) {
        struct doctor_ask *p = &m->list[i];
        if (!p->facts) continue;
        ask_time(p);
        double off = fabs(p->skew_s);
        seen++;
        if (off > most) most = off;
        if (p->doubt_s > doubt) doubt = p->doubt_s;
        if (!(off - p->doubt_s > SKEW_WARN)) continue;
        struct doctor_finding f = {.name = "clock skew"};
        doctor_say(&f, "its clock is %.3g s %s", off,
                   p->skew_s > 0 ? "ahead of this machine's" : "behind this machine's");
        doctor_cure(&f, off > SKEW_BAD ? DOCTOR_BAD : DOCTOR_WARN, ERR_UNAVAILABLE,
                    "times in logs and events cannot be compared, and S3 refuses what is 15 minutes off: "
                    "start chrony "
                    "(timedatectl set-ntp true) on every host");
        tell(m, p->name, &f);
        wrong++;
    }
    struct doctor_finding f = {.name = "clock skew"};
    doctor_say(&f, "clocks agree within %.3g ms, give or take %.2g", 1e3 * most, 1e3 * doubt);
    if (!wrong && seen) tell(m, "", &f);
}

// ---- step 4: every pair

static void cure_pair(struct doctor_finding *f, const char *kind, const char *from, const char *to) {
    if (!strcmp(kind, "name"))
        doctor_cure(f, DOCTOR_BAD, ERR_UNAVAILABLE, "on %s, add %s to /etc/hosts or to the DNS", from, to);
    else if (!strcmp(kind, "loopback"))
        doctor_cure(f, DOCTOR_BAD, ERR_CONFIG, "on %s, take %s off the 127.x line in /etc/hosts", from, to);
    else if (!strcmp(kind, "refused") || !strcmp(kind, "timeout"))
        doctor_cure(f, DOCTOR_BAD, ERR_UNAVAILABLE,
                    "a firewall or a missing route: on %s open TCP ports above 1024 for %s (ports are chosen "
                    "by the kernel: "
                    "sysctl net.ipv4.ip_local_port_range)",
                    to, from);
    else
        doctor_cure(f, DOCTOR_BAD, ERR_UNAVAILABLE, "on %s: ip route get %s; ping %s", from, to, to);
}

static void tell_pair(struct meeting *m, const struct doctor_ask *p, const struct json_value *row) {
    struct doctor_finding f = {.name = "ports"};
    const char *address = json_string_or(row, "address", "");
    doctor_say(&f, "cannot reach %.100s%s%.20s%s: %.150s", json_string_or(row, "name", ""),
               *address ? " (" : "", address, *address ? ")" : "", json_string_or(row, "why", ""));
    cure_pair(&f, json_string_or(row, "kind", ""), p->name, json_string_or(row, "name", ""));
    tell(m, p->name, &f);
}

static void ask_peers(struct meeting *m, struct doctor_ask *p) {
    char line[HOSTS_NAME_BYTES + DOCTOR_TOKEN_BYTES + 32];
    for (int i = 0; i < m->n; i++) {
        const struct doctor_ask *q = &m->list[i];
        if (q == p || !q->facts) continue;
        int n = snprintf(line, sizeof line, "peer %s %" PRId64 " %s\n", q->name, q->port, q->token);
        if (!doctor_ask(p, line, (size_t)n)) return;
    }
    (void)doctor_ask(p, "go\n", 3);
}

// Which interface leads to the others; one that changes from peer to peer is told.
static void tell_way(struct meeting *m, const struct doctor_ask *p, const struct json_value *rows) {
    struct doctor_finding f = {.name = "interface"};
    const char *first = json_string_or(json_at(rows, 0), "interface", "");
    for (size_t i = 1; i < json_size(rows); i++) {
        const char *other = json_string_or(json_at(rows, i), "interface", "");
        if (!*other || !*first || !strcmp(other, first)) continue;
        doctor_say(&f, "%s leads to %s, %s to %s", first, json_string_or(json_at(rows, 0), "name", ""), other,
                   json_string_or(json_at(rows, i), "name", ""));
        doctor_cure(&f, DOCTOR_WARN, ERR_OK, "name the network that all share: launch.interface=10.0.0.0/24");
        tell(m, p->name, &f);
        return;
    }
    doctor_say(&f, "%s leads to the others", *first ? first : "none");
    if (*first) tell(m, p->name, &f);
}

static void try_pairs(struct meeting *m) {
    int pairs = 0, broken = 0;
    for (int i = 0; i < m->n; i++)
        if (m->list[i].facts) ask_peers(m, &m->list[i]);
    int64_t until_ns = until(PEERS_MS);
    for (int i = 0; i < m->n; i++) {
        struct doctor_ask *p = &m->list[i];
        struct json *doc = p->facts ? doctor_ask_answer(p, until_ns) : NULL;
        const struct json_value *rows = json_get(json_root(doc), "peers");
        for (size_t k = 0; k < json_size(rows); k++) {
            bool reached = !*json_string_or(json_at(rows, k), "why", "");
            pairs++;
            broken += !reached;
            if (!reached) tell_pair(m, p, json_at(rows, k));
        }
        if (json_size(rows)) tell_way(m, p, rows);
        if (p->facts && !doc) tell_silence(m, p);
        json_destroy(doc);
    }
    struct doctor_finding f = {.name = "ports"};
    doctor_say(&f, "all %d pairs of hosts reach each other", pairs);
    if (!broken && pairs) tell(m, "", &f);
}

// ---- all of it

static void sum_together(struct meeting *m) {
    struct doctor_finding f = {.name = "ranks"};
    if (m->bad) {
        doctor_say(&f, "a rank on each host: not tried");
        doctor_cure(&f, DOCTOR_WARN, ERR_OK, "mend what stands above, then again");
    } else
        doctor_sum_over(m->o, &f);
    tell(m, "", &f);
}

int doctor_hosts(const struct doctor_hosts_options *o, doctor_each_fn *each, void *arg, struct err *e) {
    struct meeting m = {.o = o, .each = each, .arg = arg, .n = o->hosts->n};
    m.list = calloc((size_t)m.n + 1, sizeof *m.list);
    if (!m.list) return err_set(e, ERR_MEMORY, "no memory for %d hosts", m.n);
    for (int i = 0; i < m.n; i++) {
        m.list[i] = (struct doctor_ask){.name = o->hosts->list[i].name, .in = -1, .out = -1};
        buf_init(&m.list[i].heard, DOCTOR_LINE_BYTES);
    }
    int rc = start_all(&m, e);
    if (!rc) {
        hear_facts(&m);
        compare_all(&m);
        compare_clocks(&m);
        try_pairs(&m);
        sum_together(&m);
    }
    for (int i = 0; i < m.n; i++) doctor_ask_end(&m.list[i]);
    free(m.list);
    return rc;
}
