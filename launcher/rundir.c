// SPDX-License-Identifier: Apache-2.0
#include "launcher/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/folder.h"
#include "base/json.h"
#include "base/process.h"
#include "launcher/proc.h"

#define RECORD_BYTES_MAX 65536
#define CONFIG_BYTES     (1 << 20)
#define ZFS_MAGIC        0x2fc12fc1 // not among Linux' own
#define LOCK_TRIES       60
#define LOCK_GLANCES     3 // before anybody is believed to hold it: orrery top asks with a lock of its own
#define LOCK_WAIT_MS     50

int rundir_check_name(const char *path, struct err *e) {
    if (!*path) return err_set(e, ERR_CONFIG, "run.dir is empty; name a folder: run.dir=runs/first");
    if (!strstr(path, "://")) return 0;
    return err_set(e, ERR_CONFIG,
                   "%.200s is a URL, and a run is a folder: run.dir=runs/first; its checkpoints can go to a "
                   "URL: checkpoint.url=%.200s",
                   path, path);
}

int rundir_open(struct rundir *r, const char *path, bool create, struct err *e) {
    char resolved[PATH_MAX];
    struct stat st;
    memset(r, 0, sizeof *r);
    r->lock_fd = -1;
    int rc = rundir_check_name(path, e);
    if (!rc && create) rc = bytes_make_dirs(path, e);
    if (rc) return rc;
    if (stat(path, &st)) return err_errno(e, errno, "no run folder %s", path);
    if (!S_ISDIR(st.st_mode)) return err_set(e, ERR_DATA, "%s is no folder; a run folder is wanted", path);
    if (!realpath(path, resolved)) return err_errno(e, errno, "cannot resolve %s", path);
    if (!strcmp(resolved, "/"))
        return err_set(e, ERR_CONFIG, "run.dir is /; name a folder: run.dir=runs/first");
    if (strlen(resolved) >= sizeof r->path || strlen(path) >= sizeof r->given)
        return err_set(e, ERR_CONFIG, "run.dir is too long: %.200s...", path);
    memcpy(r->path, resolved, strlen(resolved) + 1);
    memcpy(r->given, path, strlen(path) + 1);
    return 0;
}

void rundir_close(struct rundir *r) {
    if (r->lock_fd >= 0) close(r->lock_fd);
    r->lock_fd = -1;
}

int rundir_join(const struct rundir *r, const char *name, char *out, size_t out_bytes, struct err *e) {
    if ((size_t)snprintf(out, out_bytes, "%s/%s", r->path, name) >= out_bytes)
        return err_set(e, ERR_USAGE, "the path %s/%s is too long", r->path, name);
    return 0;
}

// One part: made when missing, refused when it is something else than a folder.
static int make_part(const char *path, struct err *e) {
    struct stat st;
    if (mkdir(path, 0777) && errno != EEXIST) return err_errno(e, errno, "cannot make the folder %s", path);
    if (lstat(path, &st)) return err_errno(e, errno, "cannot look at %s", path);
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ERR_DATA, "%s is %s, not a folder; remove it, or name another run.dir", path,
                       S_ISLNK(st.st_mode) ? "a symbolic link" : "a file");
    return 0;
}

int rundir_make(const struct rundir *r, const char *name, char *out, size_t out_bytes, struct err *e) {
    int rc = rundir_join(r, name, out, out_bytes, e);
    for (char *slash = rc ? NULL : out + strlen(r->path) + 1; slash && !rc;) {
        slash = strchr(slash, '/');
        if (slash) *slash = 0;
        rc = make_part(out, e);
        if (slash) *slash++ = '/';
    }
    return rc;
}

int rundir_last_attempt(const struct rundir *r, const char *prefix, struct err *e) {
    char path[RUNDIR_PATH_BYTES + 8];
    int64_t last = 0;
    size_t n = strlen(prefix);
    snprintf(path, sizeof path, "%s/logs", r->path);
    DIR *dir = opendir(path);
    struct dirent *entry;
    if (!dir && (errno == ENOENT || errno == ENOTDIR)) return 0;
    if (!dir) return err_errno(e, errno, "cannot read %s", path);
    int rc;
    while (!(rc = folder_next(dir, path, &entry, e)) && entry) {
        int64_t number;
        bool ours = !strncmp(entry->d_name, prefix, n) && entry->d_name[n] == '-';
        if (ours && bytes_parse_i64(entry->d_name + n + 1, &number) && number > last && number < INT_MAX)
            last = number;
    }
    closedir(dir);
    return rc ? rc : (int)last;
}

int rundir_append(const struct rundir *r, const char *name, int *fd, struct err *e) {
    char path[RUNDIR_PATH_BYTES + 256];
    struct stat st;
    int rc = rundir_join(r, name, path, sizeof path, e);
    if (rc) return rc;
    *fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (*fd < 0 && errno == ELOOP)
        return err_set(e, ERR_DATA, "%s is a symbolic link; remove it, or name another run.dir", path);
    if (*fd < 0) return err_errno(e, errno, "cannot open %s", path);
    if (!fstat(*fd, &st) && S_ISREG(st.st_mode)) return 0;
    close(*fd);
    *fd = -1;
    return err_set(e, ERR_DATA, "%s is no regular file", path);
}

static void take_text(const struct json_value *root, const char *key, char *out, size_t out_bytes) {
    snprintf(out, out_bytes, "%s", json_string_or(root, key, ""));
    bytes_defuse(out);
}

// ---- the lock

static int refuse(const struct rundir *r, const char *path, bool *holder_gone, struct err *e) {
    struct buf text;
    struct json *doc = NULL;
    struct err bad = {0};
    int64_t pid = 0;
    char host[64] = "", since[40] = "", here[64];
    buf_init(&text, RECORD_BYTES_MAX);
    if (!bytes_read_file(path, RECORD_BYTES_MAX, &text, &bad) &&
        !json_parse(&doc, text.data, text.len, path, &bad)) {
        pid = json_int_or(json_root(doc), "pid", 0);
        take_text(json_root(doc), "host", host, sizeof host);
        take_text(json_root(doc), "since", since, sizeof since);
    }
    json_destroy(doc);
    buf_fini(&text);
    process_host(here, sizeof here, "");
    *holder_gone = pid > 0 && !strcmp(here, host) && !proc_alive((pid_t)pid);
    if (pid <= 1 || pid > INT_MAX || !*host)
        return err_set(e, ERR_CONFLICT,
                       "%s is in use, and its lock does not say by whom; find out with: fuser -v %s",
                       r->given, path);
    return err_set(
        e, ERR_CONFLICT,
        "%s is in use by process %lld on host %s since %s; wait for it, or stop it there with: kill %lld",
        r->given, (long long)pid, host, since, (long long)pid);
}

static int sign_lock(struct rundir *r, struct err *e) {
    char host[64], now[CLOCK_ISO_BYTES], line[256];
    int n = snprintf(line, sizeof line, "{\"pid\": %d, \"host\": \"%s\", \"since\": \"%s\"}\n", (int)getpid(),
                     process_host(host, sizeof host, "?"), clock_iso(clock_utc_ns(), now));
    if (ftruncate(r->lock_fd, 0) || bytes_pwrite_whole(r->lock_fd, line, (size_t)n, 0) < (size_t)n)
        return err_errno(e, errno, "cannot write %s/lock", r->path);
    return 0;
}

int rundir_lock(struct rundir *r, struct err *e) {
    char path[RUNDIR_PATH_BYTES + 8];
    bool holder_gone = true;
    int fd;
    int rc = rundir_append(r, "lock", &fd, e);
    if (rc) return rc;
    fcntl(fd, F_SETFL, 0); // no O_APPEND: sign_lock writes at 0
    snprintf(path, sizeof path, "%s/lock", r->path);
    for (int i = 0; i < LOCK_TRIES && (holder_gone || i < LOCK_GLANCES); i++) {
        struct err refusal = {0};
        if (!flock(fd, LOCK_EX | LOCK_NB)) {
            r->lock_fd = fd;
            return sign_lock(r, e);
        }
        if (errno != EWOULDBLOCK) {
            rc = err_errno(e, errno, "cannot lock %s", path);
            break;
        }
        rc = refuse(r, path, &holder_gone, &refusal);
        if ((!holder_gone && i >= LOCK_GLANCES - 1) || i == LOCK_TRIES - 1)
            *e = refusal;
        else
            clock_sleep_ms(LOCK_WAIT_MS);
    }
    close(fd);
    return rc;
}

bool rundir_is_held(const struct rundir *r) {
    char path[RUNDIR_PATH_BYTES + 8];
    snprintf(path, sizeof path, "%s/lock", r->path);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return false;
    bool held = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd);
    return held;
}

bool rundir_is_local(const struct rundir *r) {
    static const unsigned long local[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC,       BTRFS_SUPER_MAGIC,
                                          TMPFS_MAGIC,      OVERLAYFS_SUPER_MAGIC, F2FS_SUPER_MAGIC,
                                          ZFS_MAGIC};
    struct statfs about;
    bool found = false;
    if (statfs(r->path, &about)) return false;
    for (size_t i = 0; i < sizeof local / sizeof *local; i++)
        found = found || (unsigned long)about.f_type == local[i];
    return found;
}

bool rundir_is_lost(const struct rundir *r) {
    char path[RUNDIR_PATH_BYTES + 8];
    struct stat ours, there;
    snprintf(path, sizeof path, "%s/lock", r->path);
    if (r->lock_fd < 0 || fstat(r->lock_fd, &ours)) return false;
    if (lstat(path, &there)) return errno == ENOENT || errno == ENOTDIR; // otherwise nothing is known
    return ours.st_dev != there.st_dev || ours.st_ino != there.st_ino;
}

// ---- run.json

int rundir_read_record(const struct rundir *r, struct rundir_record *out, struct err *e) {
    char path[RUNDIR_PATH_BYTES + 16];
    struct buf text;
    struct json *doc = NULL;
    memset(out, 0, sizeof *out);
    buf_init(&text, RECORD_BYTES_MAX);
    int rc = rundir_join(r, "run.json", path, sizeof path, e);
    if (!rc) rc = bytes_read_file(path, RECORD_BYTES_MAX, &text, e);
    if (!rc) rc = json_parse(&doc, text.data, text.len, path, e);
    if (!rc) {
        const struct json_value *root = json_root(doc);
        take_text(root, "id", out->id, sizeof out->id);
        take_text(root, "state", out->state, sizeof out->state);
        take_text(root, "task", out->task, sizeof out->task);
        take_text(root, "host", out->host, sizeof out->host);
        take_text(root, "boxes", out->box_path, sizeof out->box_path);
        take_text(root, "started", out->started, sizeof out->started);
        take_text(root, "ended", out->ended, sizeof out->ended);
        out->pid = json_int_or(root, "pid", 0);
        out->ranks = json_int_or(root, "ranks", 0);
        out->attempt = json_int_or(root, "attempt", 0);
        out->exit_code = json_int_or(root, "exit_code", 0);
    }
    json_destroy(doc);
    buf_fini(&text);
    return rc;
}

int rundir_write_record(const struct rundir *r, const struct rundir_record *record, struct err *e) {
    char path[RUNDIR_PATH_BYTES + 16];
    struct buf text;
    struct json_writer w;
    buf_init(&text, RECORD_BYTES_MAX);
    json_begin(&w, &text);
    json_put_object(&w, NULL);
    json_put_string(&w, "id", record->id);
    json_put_string(&w, "state", record->state);
    json_put_string(&w, "task", record->task);
    json_put_string(&w, "host", record->host);
    json_put_int(&w, "pid", record->pid);
    json_put_int(&w, "ranks", record->ranks);
    json_put_int(&w, "attempt", record->attempt);
    json_put_int(&w, "exit_code", record->exit_code);
    json_put_string(&w, "started", record->started);
    json_put_string(&w, "ended", record->ended);
    json_put_string(&w, "boxes", record->box_path);
    json_close(&w, '}');
    int rc = json_end(&w, e);
    if (!rc) rc = buf_appends(&text, "\n", e);
    if (!rc) rc = rundir_join(r, "run.json", path, sizeof path, e);
    if (!rc) rc = bytes_write_file(path, text.data, text.len, e);
    buf_fini(&text);
    return rc;
}

int rundir_write_config(const struct rundir *r, const struct config_file *config, char *path,
                        size_t path_bytes, struct err *e) {
    struct buf text;
    buf_init(&text, CONFIG_BYTES);
    int rc = rundir_join(r, "config.yaml", path, path_bytes, e);
    if (!rc) rc = config_write(config, &text, e);
    if (!rc) rc = bytes_write_file(path, text.data, text.len, e);
    buf_fini(&text);
    return rc;
}

int rundir_new_id(char out[RUNDIR_ID_BYTES], const char *path, struct err *e) {
    unsigned char random_bytes[2];
    char hex[5], now[CLOCK_ISO_BYTES];
    const char *slash = strrchr(path, '/');
    if (getrandom(random_bytes, sizeof random_bytes, 0) != (ssize_t)sizeof random_bytes)
        return err_errno(e, errno, "no random bytes for the run's id");
    bytes_hex(random_bytes, sizeof random_bytes, hex);
    clock_iso(clock_utc_ns(), now); // 2026-11-22T18:03:04.123Z
    snprintf(out, RUNDIR_ID_BYTES, "%.32s-%.4s%.2s%.2s-%.2s%.2s%.2s-%s", slash ? slash + 1 : path, now,
             now + 5, now + 8, now + 11, now + 14, now + 17, hex);
    return 0;
}
