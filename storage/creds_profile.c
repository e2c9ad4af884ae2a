// SPDX-License-Identifier: Apache-2.0
// The profile of the shared files: ~/.aws/credentials first, then ~/.aws/config.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/creds_source.h"

#define FILE_MAX ((size_t)1 << 20)

static int file_path(const struct creds_env *env, enum creds_variable given, const char *name, char *out,
                     size_t n) {
    const char *path = env->values[given], *home = env->values[CREDS_HOME];
    int used = path ? snprintf(out, n, "%s", path) : snprintf(out, n, "%s/.aws/%s", home ? home : "", name);
    return used > 0 && (size_t)used < n ? 0 : -1;
}

static int use_profile(const struct creds_env *env, const struct creds_profile *p, const char *source,
                       struct creds_set *out, struct err *e) {
    if (p->access || p->secret) return creds_set_fill(out, p->access, p->secret, p->token, source, e);
    if (p->process) return creds_from_process(p->process, source, CREDS_PROCESS_MS, out, e);
    const struct creds_role r = {p->token_file, p->role_arn, p->session_name, p->region};
    if (r.token_file && r.role_arn) return creds_assume_role(env, &r, source, out, e);
    if (p->unsupported || r.role_arn)
        return err_set(
            e, ERR_DENIED,
            "%s uses %s, which is not supported: let credential_process run a program that gives the "
            "credentials ('aws configure export-credentials --format process')",
            source, p->unsupported ? p->unsupported : "role_arn");
    return 1;
}

// 1: no such file, no such profile in it, or no credentials in that.
static int from_file(const struct creds_env *env, const char *path, bool named, struct creds_set *out,
                     struct err *e) {
    const char *given = env->values[CREDS_PROFILE];
    struct creds_profile p = {.name = given ? given : "default"};
    struct buf text;
    char source[CREDS_SOURCE_BYTES];
    if (access(path, F_OK)) return 1;
    buf_init(&text, FILE_MAX);
    int rc = bytes_read_file(path, FILE_MAX, &text, e);
    if (!rc && text.data) creds_read_profile(text.data, named, &p);
    snprintf(source, sizeof source, "%.250s, profile '%.100s'", path, p.name);
    if (!rc) rc = p.found ? use_profile(env, &p, source, out, e) : 1;
    creds_wipe(&text);
    return rc;
}

int creds_from_profile(const struct creds_env *env, struct creds_set *out, struct err *e) {
    char credentials[2048], config[2048];
    if (file_path(env, CREDS_CREDENTIALS_FILE, "credentials", credentials, sizeof credentials) ||
        file_path(env, CREDS_CONFIG_FILE, "config", config, sizeof config))
        return err_set(e, ERR_CONFIG, "the path of the S3 credentials file is too long");
    int rc = from_file(env, credentials, false, out, e);
    if (rc == 1) rc = from_file(env, config, true, out, e);
    if (rc != 1 || !env->values[CREDS_PROFILE]) return rc;
    bool there = !access(credentials, F_OK) || !access(config, F_OK);
    return err_set(e, ERR_DENIED, "%.200s, %.200s: %s '%.100s' with credentials", credentials, config,
                   there ? "no profile" : "No such file, so no profile", env->values[CREDS_PROFILE]);
}
