// SPDX-License-Identifier: Apache-2.0
// Surroundings as fixtures: each row is what a command sees, and where it must find itself.
#include "launcher/place.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "launcher/nodelist.h"

struct row {
    const char *what;
    const char *env;   // "A=1 B=2"
    const char *hosts; // NULL: none
    const char *files; // a host file's text, with HOSTFILE in `env` for its path
    const char *state; // of the Slurm job; NULL: running
    int64_t flag, config;
    // expected
    enum place_kind kind;
    const char *where; // "n0:1,n1:1"; "": this machine alone
    int64_t ranks;
    const char *error; // part of the message; NULL: none
};

#define FOUR       "SLURM_JOB_ID=7 SLURM_JOB_NODELIST=n[0-3] "
#define FOUR_TASKS FOUR "SLURM_NTASKS=4 SLURM_TASKS_PER_NODE=1(x4) "
#define FILE_SET   "OMPI_MCA_orte_default_hostfile=HOSTFILE "

static const struct row rows[] = {
    {.what = "a laptop", .env = "HOME=/root", .where = ""},
    {.what = "a laptop, -n 3 over launch.ranks", .env = "", .flag = 3, .config = 2, .where = "", .ranks = 3},
    {.what = "launch.ranks", .env = "", .config = 2, .where = "", .ranks = 2},
    {.what = "a pod without a host file", .env = "KUBERNETES_SERVICE_HOST=10.0.0.1", .where = ""},
    {.what = "hosts", .env = "", .hosts = "h1:2,h2", .kind = PLACE_HOSTS, .where = "h1:2,h2:1", .ranks = 3},
    {.what = "hosts, fewer ranks",
     .env = "",
     .hosts = "h1:2,h2:2",
     .flag = 3,
     .kind = PLACE_HOSTS,
     .where = "h1:2,h2:2",
     .ranks = 3},
    {.what = "this one host", .env = "", .hosts = "here:2", .kind = PLACE_HOSTS, .where = "", .ranks = 2},
    {.what = "batch script, tasks",
     .env = FOUR_TASKS "SLURM_PROCID=0",
     .kind = PLACE_SLURM,
     .where = "n0:1,n1:1,n2:1,n3:1",
     .ranks = 4},
    {.what = "the same with -n 4",
     .env = FOUR_TASKS,
     .flag = 4,
     .kind = PLACE_SLURM,
     .where = "n0:1,n1:1,n2:1,n3:1",
     .ranks = 4},
    {.what = "uneven tasks",
     .env = "SLURM_JOB_ID=7 SLURM_JOB_NODELIST=a,b[08-09] SLURM_NTASKS=5 "
            "SLURM_TASKS_PER_NODE=2(x2),1",
     .kind = PLACE_SLURM,
     .where = "a:2,b08:2,b09:1",
     .ranks = 5},
    {.what = "nodes only",
     .env = FOUR "SLURM_TASKS_PER_NODE=2(x4)",
     .kind = PLACE_SLURM,
     .where = "n0:1,n1:1,n2:1,n3:1",
     .ranks = 4},
    {.what = "nodes only, -n 6",
     .env = FOUR,
     .flag = 6,
     .kind = PLACE_SLURM,
     .where = "n0:2,n1:2,n2:1,n3:1",
     .ranks = 6},
    {.what = "nodes only, -n 2",
     .env = FOUR,
     .flag = 2,
     .kind = PLACE_SLURM,
     .where = "n0:1,n1:1",
     .ranks = 2},
    {.what = "GPUs",
     .env = FOUR "SLURM_GPUS_ON_NODE=8",
     .kind = PLACE_SLURM,
     .where = "n0:8,n1:8,n2:8,n3:8",
     .ranks = 32},
    {.what = "one node, this one",
     .env = "SLURM_JOB_ID=7 SLURM_JOB_NODELIST=here SLURM_NTASKS=2 "
            "SLURM_TASKS_PER_NODE=2",
     .kind = PLACE_SLURM,
     .where = "",
     .ranks = 2},
    {.what = "the shell of an interactive step",
     .env = FOUR_TASKS "SLURM_STEP_ID=4294967290 "
                       "SLURM_STEP_NUM_TASKS=1",
     .kind = PLACE_SLURM,
     .where = "n0:1,n1:1,n2:1,n3:1",
     .ranks = 4},
    {.what = "srun --pty bash",
     .env = FOUR_TASKS "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1",
     .kind = PLACE_SLURM,
     .where = "n0:1,n1:1,n2:1,n3:1",
     .ranks = 4},
    {.what = "MPI operator",
     .env = FILE_SET,
     .files = "w-0.run slots=2\nw-1.run slots=2\n",
     .kind = PLACE_K8S,
     .where = "w-0.run:2,w-1.run:2",
     .ranks = 4},
    {.what = "MPI operator, Open MPI 5",
     .env = "PRTE_MCA_prte_default_hostfile=HOSTFILE",
     .files = "w-0:8\n",
     .flag = 4,
     .kind = PLACE_K8S,
     .where = "w-0:8",
     .ranks = 4},

    {.what = "-n against SLURM_NTASKS",
     .env = FOUR_TASKS,
     .flag = 8,
     .error = "SLURM_NTASKS says 4 ranks, -n says 8"},
    {.what = "launch.ranks against SLURM_NTASKS",
     .env = FOUR_TASKS,
     .config = 2,
     .error = "leave launch.ranks out"},
    {.what = "hosts inside an allocation", .env = FOUR_TASKS, .hosts = "h1,h2", .error = "has its own nodes"},
    {.what = "inside another MPI job", .env = "PMIX_RANK=0", .error = "unset PMIX_RANK"},
    {.what = "a rank of mpirun",
     .env = FOUR_TASKS "OMPI_COMM_WORLD_SIZE=4",
     .error = "OMPI_COMM_WORLD_SIZE is set"},
    {.what = "started by srun",
     .env = FOUR_TASKS "SLURM_STEP_ID=3 SLURM_STEP_NUM_TASKS=4 PMIX_RANK=2",
     .error = "started this command 4 times"},
    {.what = "an allocation that is over",
     .env = FOUR_TASKS,
     .state = "COMPLETED",
     .error = "is over (COMPLETED)"},
    {.what = "left-over of a job", .env = "SLURM_JOB_ID=7", .error = "without SLURM_JOB_NODELIST"},
    {.what = "no number of a job", .env = "SLURM_JOB_ID=7;rm SLURM_JOB_NODELIST=n0", .error = "is no number"},
    {.what = "tasks that do not fit",
     .env = FOUR "SLURM_NTASKS=4 SLURM_TASKS_PER_NODE=1(x3)",
     .error = "does not fit the 4 nodes"},
    {.what = "sums that do not fit",
     .env = FOUR "SLURM_NTASKS=5 SLURM_TASKS_PER_NODE=1(x4)",
     .error = "makes 4"},
    {.what = "a heterogeneous job", .env = FOUR_TASKS "SLURM_HET_SIZE=2", .error = "heterogeneous"},
    {.what = "Slurm and a host file",
     .env = FOUR_TASKS FILE_SET,
     .files = "h1\n",
     .error = "unset the variables"},
    {.what = "host file that is not there",
     .env = "OMPI_MCA_orte_default_hostfile=/nowhere/hosts",
     .error = "are the workers up?"},
    {.what = "empty host file", .env = FILE_SET, .files = "# none yet\n", .error = "names no host"},
    {.what = "host file and --hosts",
     .env = FILE_SET,
     .files = "h1\n",
     .hosts = "h2",
     .error = "so is a host file"},
    {.what = "too many ranks for the hosts", .env = "", .hosts = "h1:2", .flag = 3, .error = "has 2 slots"},
    {.what = "a host that is an option", .env = "", .hosts = "-oProxyCommand=x", .error = "no host name"},
    {.what = "nodes that are shell",
     .env = "SLURM_JOB_ID=7 SLURM_JOB_NODELIST=n0;reboot",
     .error = "no host name"},
    {.what = "nodes without end",
     .env = "SLURM_JOB_ID=7 SLURM_JOB_NODELIST=n[0-999999999]",
     .error = "too many"},
    {.what = "nodes without end, twice",
     .env = "SLURM_JOB_ID=7 SLURM_JOB_NODELIST=n[0-4000]x[0-4000]",
     .error = "too many"},
};

struct world {
    const struct row *row;
    char path[64];
    char values[32][256]; // as long-lived as those of getenv
    int n_values;
};

static const char *variable(void *arg, const char *name) {
    struct world *w = arg;
    size_t n = strlen(name);
    for (const char *at = w->row->env; *at;) {
        size_t len = strcspn(at, " ");
        if (len > n && !strncmp(at, name, n) && at[n] == '=') {
            char *value = w->values[w->n_values++ % 32];
            snprintf(value, sizeof w->values[0], "%.*s", (int)(len - n - 1), at + n + 1);
            return strcmp(value, "HOSTFILE") != 0 ? value : w->path;
        }
        at += len + (at[len] == ' ');
    }
    return NULL;
}

static bool is_file(void *arg, const char *path) {
    const struct world *w = arg;
    return w->row->files && !strcmp(path, w->path);
}

static bool job_state(void *arg, const char *job_id, char *state, int state_bytes) {
    const struct world *w = arg;
    assert_string_equal(job_id, "7");
    snprintf(state, (size_t)state_bytes, "%s", w->row->state ? w->row->state : "RUNNING");
    return true;
}

static void hosts_text(const struct hosts *h, char *out, size_t out_bytes) {
    size_t used = 0;
    out[0] = 0;
    for (int i = 0; i < h->n && used < out_bytes; i++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%s:%d", i ? "," : "", h->list[i].name,
                                 h->list[i].slots);
}

static void check_row(const struct row *row) {
    struct world w = {.row = row, .path = "/tmp/orrery-place-XXXXXX"};
    struct place_view view = {.variable = variable,
                              .is_file = is_file,
                              .job_state = job_state,
                              .arg = &w,
                              .host = "here.example",
                              .hosts = row->hosts ? row->hosts : "",
                              .flag_ranks = row->flag,
                              .config_ranks = row->config};
    struct place p;
    struct err e = {0};
    char where[512];
    if (row->files) {
        int fd = mkstemp(w.path);
        assert_true(fd >= 0 && write(fd, row->files, strlen(row->files)) > 0);
        close(fd);
    }
    int rc = place_find(&view, &p, &e);
    hosts_text(&p.hosts, where, sizeof where);
    if (row->files) unlink(w.path);
    print_message("%s: %s\n", row->what, rc ? e.text : where);
    if (row->error) {
        assert_int_equal(e.code, ERR_CONFIG);
        assert_non_null(strstr(e.text, row->error));
    } else {
        assert_int_equal(rc, 0);
        assert_int_equal(p.kind, row->kind);
        assert_int_equal(p.ranks, row->ranks);
        assert_string_equal(where, row->where);
    }
    place_fini(&p);
}

static void matrix(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) check_row(&rows[i]);
}

static void requeued_job(void **state) {
    const struct row row = {.env = FOUR_TASKS "SLURM_RESTART_COUNT=2"};
    struct world w = {.row = &row};
    struct place_view view = {.variable = variable,
                              .is_file = is_file,
                              .job_state = job_state,
                              .arg = &w,
                              .host = "here",
                              .hosts = ""};
    struct place p;
    struct err e = {0};
    (void)state;
    assert_int_equal(place_find(&view, &p, &e), 0);
    assert_int_equal(p.restarts, 2);
    assert_string_equal(p.name, "Slurm job 7");
    place_fini(&p);
}

// This process, whatever its surroundings, is found somewhere or refused; nothing is left behind.
static void own_view(void **state) {
    struct place_view view;
    struct place p;
    struct err e = {0};
    char host[64];
    (void)state;
    place_view_here(&view, host, sizeof host);
    int rc = place_find(&view, &p, &e);
    assert_true(rc == 0 || e.code == ERR_CONFIG);
    place_fini(&p);
}

static void long_lists(void **state) {
    struct hosts h = {0};
    struct err e = {0};
    (void)state;
    assert_int_equal(nodelist_parse(&h, "rack[1-4]n[00-63],login", &e), 0);
    assert_int_equal(h.n, 257);
    assert_string_equal(h.list[0].name, "rack1n00");
    assert_string_equal(h.list[255].name, "rack4n63");
    assert_int_equal(nodelist_slots(&h, "x", "8(x256),1", &e), 0);
    assert_int_equal(hosts_slots(&h), 2049);
    hosts_fini(&h);
}

static void broken_lists(void **state) {
    static const char *const texts[] = {"",       ",",
                                        "n[",     "n]",
                                        "n[]",    "n[1-]",
                                        "n[-1]",  "n[3-1]",
                                        "n[1,]",  "n[1-2",
                                        "n[[1]]", "n[1]]",
                                        "-n",     "n0,",
                                        "a b",    "n[1]x[1]y[1]z[1]",
                                        "n$(id)", "n[00000000001]"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct hosts h = {0};
        struct err e = {0};
        print_message("'%s': ", texts[i]);
        assert_true(nodelist_parse(&h, texts[i], &e) != 0);
        print_message("%s\n", e.text);
        hosts_fini(&h);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(matrix), cmocka_unit_test(requeued_job),
                                       cmocka_unit_test(own_view), cmocka_unit_test(long_lists),
                                       cmocka_unit_test(broken_lists)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
