// SPDX-License-Identifier: Apache-2.0
// Ranks that sum together, on this machine or over several hosts: are the sums right, and how fast are they?
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "launcher/bare.h"
#include "launcher/doctor_impl.h"
#include "launcher/netif.h"
#include "launcher/proc.h"

#define SUM_MS       20000
#define SUM_BYTES    65536
#define SLOW_BYTES_S 5e7 // of an all-reduce: less than a 1 Gbit/s network gives

// What a rank said before it failed; else the first words of mpirun's own that are no rule.
static void telling_line(const char *data, char *out, size_t n) {
    const char *at = strstr(data, "error: ");
    at = at ? at + strlen("error: ") : data + strspn(data, "-\n ");
    snprintf(out, n, "%.*s", (int)strcspn(at, "\n"), at);
}

void doctor_judge_sum(struct doctor_finding *f, int wanted, int status, const char *answer,
                      const char *said) {
    struct json *doc = NULL;
    char words[300];
    int64_t ranks = 0, wrong = -1, bytes = 0;
    double seconds = 0;
    const char *at = strchr(answer, '{');
    telling_line(said, words, sizeof words);
    bool told = !status && at && !json_parse(&doc, at, strcspn(at, "\n"), "the check's answer", NULL);
    const struct json_value *o = told ? json_root(doc) : NULL;
    told = json_as_int(json_get(o, "ranks"), &ranks) && json_as_int(json_get(o, "wrong"), &wrong) &&
           json_as_int(json_get(o, "bytes"), &bytes) && json_as_double(json_get(o, "seconds"), &seconds);
    double speed = seconds > 0 ? (double)bytes / seconds : 0;
    if (!told) {
        doctor_say(f, "%d ranks did not come together (exit %d): %s", wanted, status, words);
        doctor_cure(f, DOCTOR_BAD, ERR_UNAVAILABLE, "see the findings above; by hand: mpirun -np 2 hostname");
    } else if (ranks != wanted) {
        doctor_say(f, "%d ranks were started, and each sees %lld", wanted, (long long)ranks);
        doctor_cure(f, DOCTOR_BAD, ERR_UNAVAILABLE,
                    "mpirun and orrery-rank do not know each other: see orrery-rank above");
    } else if (wrong) {
        doctor_say(f, "%lld of the sums of %d ranks are wrong", (long long)wrong, wanted);
        doctor_cure(f, DOCTOR_BAD, ERR_UNAVAILABLE,
                    "do not train on this machine: test its memory and its network");
    } else {
        doctor_say(f, "%d ranks sum right, %.*f MB/s for %.1f MB", wanted, speed < 1e7, speed / 1e6,
                   (double)bytes / 1e6);
        if (!(speed >= SLOW_BYTES_S))
            doctor_cure(f, DOCTOR_WARN, ERR_OK, "slow: is the machine busy, or the network thin?");
    }
    json_destroy(doc);
}

static void sum(const struct sched *sched, const struct sched_request *wanted, struct doctor_finding *f) {
    char program[4096];
    struct strv words = {0};
    struct buf out, said;
    struct err e = {0};
    struct bare ranks = {.scratch = {.alive_fd = -1}};
    int status = 0;
    buf_init(&out, SUM_BYTES);
    buf_init(&said, SUM_BYTES);
    int rc = proc_sibling("orrery-rank", "ORRERY_RANK_PROGRAM", program, sizeof program, &e);
    const char *const text[] = {program,          "--task", "check", "device=cpu", "comm.deadline_s=10",
                                "train.threads=1"};
    if (!rc) rc = strv_add_all(&words, text, sizeof text / sizeof *text, &e);
    if (!rc) rc = bare_init(&ranks, sched, wanted, &words, &e);
    if (rc) {
        doctor_say(f, "not tried: %.300s", e.text);
        doctor_cure(f, DOCTOR_WARN, ERR_OK, "mend what stands above, then again: orrery doctor");
    } else if (proc_capture_env(ranks.argv.items, ranks.env.items, SUM_MS, &out, &said, &status, &e)) {
        doctor_say(f, "%s", e.text);
        doctor_cure(f, DOCTOR_BAD, ERR_TIMEOUT, "the ranks wait for each other: is a firewall between them?");
    } else
        doctor_judge_sum(f, wanted->ranks, status, out.data ? out.data : "", said.data ? said.data : "");
    bare_fini(&ranks);
    strv_fini(&words);
    buf_fini(&out);
    buf_fini(&said);
}

void doctor_all_reduce(const struct config *c, struct doctor_finding *f) {
    struct sched_request request = {.ranks = 2, .threads = 1, .mpi = true};
    sum(&sched_local, &request, f);
}

void doctor_sum_over(const struct doctor_hosts_options *o, struct doctor_finding *f) {
    struct netif way;
    struct err e = {0};
    const char *far = o->hosts->list[o->hosts->n - 1].name;
    if (netif_choose(&way, o->interface, far, &e)) {
        doctor_say(f, "not tried: %.300s", e.text);
        doctor_cure(f, DOCTOR_BAD, e.code,
                    "which network leads to them? launch.interface=eth0, or 10.0.0.0/24");
        return;
    }
    struct sched_request request = {.ranks = o->hosts->n,
                                    .threads = 1,
                                    .mpi = true,
                                    .hosts = o->hosts,
                                    .agent = o->agent,
                                    .network = way.network};
    sum(&sched_hosts, &request, f);
}
