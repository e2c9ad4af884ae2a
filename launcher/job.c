// SPDX-License-Identifier: Apache-2.0
#include "launcher/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/machine.h"
#include "base/process.h"
#include "launcher/boxdir.h"
#include "launcher/job_command.h"
#include "launcher/keeper.h"
#include "launcher/ledger.h"
#include "launcher/proc.h"
#include "launcher/scratch.h"
#include "launcher/supervise.h"

#define RANKS_DEFAULT 2
#define RANKS_MAX     4096
#define CONFIG_BYTES  (1 << 20)

static int64_t ranks_default(const struct config *c, int64_t asked) {
    if (asked > 0) return asked;
    return c->launch_ranks > 0 ? c->launch_ranks : RANKS_DEFAULT;
}

int job_place(const struct config *c, int64_t asked, const char *hosts, struct place *out, struct err *e) {
    struct place_view view;
    char host[64];
    place_view_here(&view, host, sizeof host);
    view.hosts = hosts ? hosts : c->launch_hosts;
    view.flag_ranks = asked;
    view.config_ranks = c->launch_ranks;
    int rc = place_find(&view, out, e);
    if (out->ranks <= 0) out->ranks = ranks_default(c, asked);
    if (!rc && c->comm_backend == CONFIG_comm_backend_self && out->ranks > 1)
        rc = err_set(e, ERR_CONFIG,
                     "comm.backend=self is for one rank, and %lld are to start: use auto, or -n 1",
                     (long long)out->ranks);
    return rc;
}

int64_t job_ranks(const struct config *c, int64_t asked) {
    struct place place;
    struct err cannot = {0};
    if (asked > 0) return asked;
    int rc = job_place(c, 0, NULL, &place, &cannot);
    int64_t ranks = rc ? ranks_default(c, 0) : place.ranks;
    place_fini(&place);
    return ranks;
}

bool job_is_single(const struct config *c, int64_t ranks) {
    int backend = c->comm_backend;
    return ranks == 1 && (backend == CONFIG_comm_backend_auto || backend == CONFIG_comm_backend_self);
}

// ---- preparing

static int find_programs(struct job *j, struct err *e) {
    int rc = process_path(j->self, sizeof j->self, e);
    return rc ? rc : proc_sibling("orrery-rank", "ORRERY_RANK_PROGRAM", j->program, sizeof j->program, e);
}

static int write_config(struct job *j, const char *folder, struct err *e) {
    struct buf text;
    if (j->request->config_path) {
        snprintf(j->config_path, sizeof j->config_path, "%s", j->request->config_path);
        return 0;
    }
    snprintf(j->config_path, sizeof j->config_path, "%s/config.yaml", folder);
    buf_init(&text, CONFIG_BYTES);
    int rc = config_write(j->request->config, &text, e);
    if (!rc) rc = bytes_write_file(j->config_path, text.data, text.len, e);
    buf_fini(&text);
    return rc;
}

// A host of the list that is not this one: the way to it tells which network to use.
static const char *other_host(const struct job *j) {
    char here[HOSTS_NAME_BYTES];
    process_host(here, sizeof here, "");
    for (int i = 0; i < j->hosts.n; i++) {
        size_t n = strcspn(here, ".");
        const char *name = j->hosts.list[i].name;
        if (strncmp(name, here, n) != 0 || (name[n] && name[n] != '.')) return name;
    }
    return j->hosts.list[0].name;
}

static int check_agent(const char *agent, struct err *e) {
    for (const char *at = agent; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f || *agent == '-')
            return err_set(e, ERR_CONFIG, "launch.agent is no command; name one, as in launch.agent=ssh");
    return 0;
}

static int most_slots(const struct job *j) {
    int most = j->hosts.n ? 1 : j->ranks;
    for (int i = 0; i < j->hosts.n; i++)
        if (j->hosts.list[i].slots > most) most = j->hosts.list[i].slots;
    return most;
}

// Takes the hosts over from the place.
static int take_place(struct job *j, struct place *place, struct err *e) {
    j->sched = sched_find(place);
    j->ranks = j->request->alone ? 1 : (int)place->ranks;
    j->hosts = place->hosts;
    place->hosts = (struct hosts){0};
    j->mpi = !j->request->alone && (job_is_far(j) || !job_is_single(j->config, j->ranks));
    j->threads = machine_threads(j->config->train_threads, most_slots(j));
    int rc = job_check_container(j, e);
    if (!rc && job_is_far(j)) rc = job_list_passed(j, e);
    if (!rc && job_is_far(j)) rc = check_agent(j->config->launch_agent, e);
    if (!rc && job_is_far(j)) rc = netif_choose(&j->netif, j->config->launch_interface, other_host(j), e);
    return rc;
}

static int plan_ranks(struct job *j, struct err *e) {
    struct place place = {.kind = PLACE_LOCAL, .ranks = ranks_default(j->config, j->request->ranks)};
    int rc = j->request->alone ? 0 : job_place(j->config, j->request->ranks, j->request->hosts, &place, e);
    if (!rc && place.ranks > RANKS_MAX)
        rc = err_set(e, ERR_CONFIG, "%lld ranks; at most %d", (long long)place.ranks, RANKS_MAX);
    if (place.ranks > RANKS_MAX) place.ranks = RANKS_MAX;
    struct err late = {0};
    int taken = take_place(j, &place, rc ? &late : e);
    place_fini(&place);
    if (!rc) rc = taken;
    return rc ? rc : j->sched->check(j->ranks, j->mpi, e);
}

// mpirun's version; warns when orrery-rank is of another.
static int meet_mpi(struct job *j, const struct log *log, struct err *e) {
    struct openmpi linked;
    char text[160];
    int rc = openmpi_of_mpirun(&j->openmpi, e);
    // In a container, and under srun, other programs than these meet.
    if (rc || job_by_srun(j->config) || *j->config->launch_container) return rc;
    openmpi_of_rank(j->program, &linked);
    if (openmpi_differ(&j->openmpi, &linked, text, sizeof text)) log_warn(log, "%s: " OPENMPI_CURE, text);
    return 0;
}

static int open_record(const struct job *j, const struct boxdir *boxes, struct rundir_record *record,
                       struct err *e) {
    struct err none = {0};
    char now[CLOCK_ISO_BYTES];
    int rc = 0;
    if (rundir_read_record(j->run, record, &none) || !record->id[0])
        rc = rundir_new_id(record->id, j->run->path, e);
    snprintf(record->state, sizeof record->state, "running");
    snprintf(record->task, sizeof record->task, "%s", j->request->task);
    snprintf(record->box_path, sizeof record->box_path, "%s", boxes->path);
    snprintf(record->started, sizeof record->started, "%s", clock_iso(clock_utc_ns(), now));
    record->ended[0] = 0;
    record->pid = getpid();
    record->ranks = j->ranks;
    record->exit_code = 0;
    process_host(record->host, sizeof record->host, "");
    return rc ? rc : rundir_write_record(j->run, record, e);
}

static int close_record(const struct job *j, struct rundir_record *record, int status, struct err *e) {
    char now[CLOCK_ISO_BYTES];
    const char *state = status == 0 ? "done" : status == err_exit_code(ERR_SAVED) ? "saved" : "failed";
    snprintf(record->state, sizeof record->state, "%s", state);
    snprintf(record->ended, sizeof record->ended, "%s", clock_iso(clock_utc_ns(), now));
    record->exit_code = status;
    record->box_path[0] = 0;
    return rundir_write_record(j->run, record, e);
}

// job.json in the private folder: what `orrery ps` shows.
static int sign_boxes(const struct job *j, const struct boxdir *boxes, struct err *e) {
    char path[BOXDIR_PATH_BYTES + 16], now[CLOCK_ISO_BYTES];
    struct buf text;
    struct json_writer w;
    buf_init(&text, 65536);
    json_begin(&w, &text);
    json_put_object(&w, NULL);
    json_put_int(&w, "pid", getpid());
    json_put_string(&w, "task", j->request->task);
    json_put_string(&w, "run", j->run->path);
    json_put_int(&w, "ranks", j->ranks);
    json_put_string(&w, "started", clock_iso(clock_utc_ns(), now));
    json_close(&w, '}');
    int rc = json_end(&w, e);
    snprintf(path, sizeof path, "%s/job.json", boxes->path);
    if (!rc) rc = bytes_write_file(path, text.data, text.len, e);
    buf_fini(&text);
    return rc;
}

// ---- running

static int supervised(struct job *j, struct boxdir *boxes, const struct log *log, struct err *e) {
    const struct job_request *request = j->request;
    struct rundir_record record = {0};
    struct ledger ledger;
    struct keeper keeper = {.fd = -1};
    char save_path[RUNDIR_PATH_BYTES + 16] = "";
    int events_fd = -1;
    bool train = request->record;
    int rc = train ? rundir_make(j->run, "blackbox", save_path, sizeof save_path, e) : 0;
    if (!rc && train) rc = rundir_append(j->run, "events.jsonl", &events_fd, e);
    ledger_init(&ledger, events_fd);
    if (!rc && train) rc = open_record(j, boxes, &record, e);
    if (!rc) rc = sign_boxes(j, boxes, e);
    struct keeper_duty duty = {.box_path = boxes->path,
                               .save_path = train ? save_path : NULL,
                               .locks = {boxes->alive_fd, train ? j->run->lock_fd : -1}};
    if (!rc) rc = keeper_start(&keeper, &duty, e);
    struct supervise_options options = {.job = j,
                                        .boxes = boxes,
                                        .keeper = &keeper,
                                        .ledger = &ledger,
                                        .record = train ? &record : NULL,
                                        .log = log,
                                        .log_prefix = train ? "attempt" : request->task,
                                        .resume_step = request->resume_step,
                                        .attempts = train ? (int)j->config->launch_attempts : 1};
    if (!rc) rc = supervise_run(&options, e);
    struct err late = {0};
    int status = rc >= 0 ? rc : err_exit_code((enum err_code)(-rc));
    if (record.id[0] && close_record(j, &record, status, &late)) log_warn(log, "%s", late.text);
    boxdir_remove_tree(boxes->path);
    keeper_stop(&keeper);
    ledger_fini(&ledger);
    return rc;
}

int job_run(const struct job_request *request, const struct log *log, struct err *e) {
    struct job *j = calloc(1, sizeof *j);
    struct rundir scratch = {.lock_fd = -1};
    struct boxdir boxes = {.alive_fd = -1};
    if (!j) return err_set(e, ERR_MEMORY, "no memory for a job");
    j->request = request;
    j->config = config_values(request->config);
    j->run = request->run;
    int rc = find_programs(j, e);
    if (!rc) rc = plan_ranks(j, e);
    if (!rc && j->mpi) rc = meet_mpi(j, log, e);
    if (!rc && request->debug && request->debug->rank >= j->ranks)
        rc = err_set(e, ERR_USAGE, "--debug %d: there are ranks 0 to %d", request->debug->rank, j->ranks - 1);
    if (!rc && !j->run) {
        rc = scratch_make(&scratch, e);
        j->run = &scratch;
    }
    if (!rc) rc = boxdir_make(&boxes, e);
    if (!rc) rc = write_config(j, boxes.path, e);
    if (!rc) rc = supervised(j, &boxes, log, e);
    boxdir_remove(&boxes);
    bool keep = j->run == &scratch && j->failed;
    if (keep)
        log_info(log, "the ranks' logs stay in %s (those of the last %d failures do)", scratch.path,
                 SCRATCH_KEPT);
    scratch_close(&scratch, keep);
    hosts_fini(&j->hosts);
    strv_fini(&j->passed);
    free(j);
    return rc;
}

// ---- telling

int job_line(const struct config_file *config, int64_t ranks, struct strv *argv, int *threads,
             struct err *e) {
    struct job *j = calloc(1, sizeof *j);
    struct rundir run = {.lock_fd = -1};
    struct strv env = {0};
    struct job_attempt a = {.number = 1,
                            .control = "",
                            .token = "",
                            .box_path = "/dev/shm/orrery-UID-RANDOM",
                            .log_path = "logs/attempt-1"};
    if (!j) return err_set(e, ERR_MEMORY, "no memory for a job");
    struct job_request request = {
        .config = config, .task = "train", .run = &run, .ranks = ranks, .record = true};
    j->request = &request;
    j->config = config_values(config);
    j->run = &run;
    snprintf(run.path, sizeof run.path, "%s", j->config->run_dir);
    snprintf(j->config_path, sizeof j->config_path, "%s/config.yaml", j->config->run_dir);
    struct err cannot = {0}, unknown = {0};
    int rc = find_programs(j, e), fits = rc ? rc : plan_ranks(j, &cannot);
    if (j->mpi && openmpi_of_mpirun(&j->openmpi, &unknown)) err_clear(&unknown);
    a.ranks = j->ranks;
    if (!rc) rc = job_command(j, &a, argv, &env, e);
    if (!rc && fits) rc = err_set(e, cannot.code, "%s", cannot.text);
    *threads = j->threads > 0 ? j->threads : 1;
    strv_fini(&env);
    hosts_fini(&j->hosts);
    strv_fini(&j->passed);
    free(j);
    return rc;
}
