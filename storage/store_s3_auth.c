// SPDX-License-Identifier: Apache-2.0
// Credentials: the environment, then a profile of the shared credentials file. Web identity, container and
// instance roles are not read yet.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/store_s3.h"

#define FILE_MAX ((size_t)1 << 20)

static const char *env(const char *name) {
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

// A key in an HTTP header: no blanks, no control characters.
static bool printable(const char *text) {
    for (; *text; text++)
        if (*text <= ' ' || *text > '~') return false;
    return true;
}

static int set_auth(struct s3_auth *out, const char *access, const char *secret, const char *token,
                    const char *source, struct err *e) {
    if (!printable(access) || !printable(secret) || (token && !printable(token)))
        return err_set(e, ERR_CONFIG, "the S3 credentials from %s hold a blank or a control character",
                       source);
    out->access_key = strdup(access);
    out->secret_key = strdup(secret);
    out->session_token = strdup(token ? token : "");
    out->source = strdup(source);
    if (out->access_key && out->secret_key && out->session_token && out->source) return 0;
    store_s3_auth_fini(out);
    return err_set(e, ERR_MEMORY, "no memory for credentials");
}

// ---- the shared credentials file: "[profile]" and "key = value" lines.

struct profile {
    const char *name;
    bool inside;
    char *access, *secret, *token; // into the file's text
};

static char *trim(char *text) {
    text += strspn(text, " \t\r");
    size_t n = strlen(text);
    while (n && strchr(" \t\r", text[n - 1])) n--;
    text[n] = 0;
    return text;
}

static void read_line(struct profile *p, char *line) {
    line = trim(line);
    if (*line == '[') {
        char *end = strchr(line, ']');
        if (end) *end = 0;
        p->inside = p->name && !strcmp(trim(line + 1), p->name);
        return;
    }
    char *equals = strchr(line, '=');
    if (!p->inside || !equals || *line == '#' || *line == ';') return;
    *equals = 0;
    char *name = trim(line), *value = trim(equals + 1);
    if (!strcmp(name, "aws_access_key_id")) p->access = value;
    if (!strcmp(name, "aws_secret_access_key")) p->secret = value;
    if (!strcmp(name, "aws_session_token")) p->token = value;
}

static int file_path(char *out, size_t n) {
    const char *given = env("AWS_SHARED_CREDENTIALS_FILE"), *home = env("HOME");
    int used =
        given ? snprintf(out, n, "%s", given) : snprintf(out, n, "%s/.aws/credentials", home ? home : "");
    return used > 0 && (size_t)used < n ? 0 : -1;
}

static int from_file(struct s3_auth *out, const char *path, struct err *e) {
    struct profile p = {.name = env("AWS_PROFILE") ? env("AWS_PROFILE") : "default"};
    struct buf text;
    char source[512];
    buf_init(&text, FILE_MAX);
    int rc = bytes_read_file(path, FILE_MAX, &text, e);
    for (char *rest = text.data, *line; !rc && rest && (line = strsep(&rest, "\n"));) read_line(&p, line);
    snprintf(source, sizeof source, "%.300s, profile '%.100s'", path, p.name);
    if (!rc && (!p.access || !p.secret))
        rc = err_set(e, ERR_DENIED, "%s has no aws_access_key_id and aws_secret_access_key", source);
    if (!rc) rc = set_auth(out, p.access, p.secret, p.token, source, e);
    if (text.data) explicit_bzero(text.data, text.len);
    buf_fini(&text);
    return rc;
}

int store_s3_auth_load(struct s3_auth *out, struct err *e) {
    char path[4096];
    const char *access = env("AWS_ACCESS_KEY_ID"), *secret = env("AWS_SECRET_ACCESS_KEY");
    if (access && secret)
        return set_auth(out, access, secret, env("AWS_SESSION_TOKEN"), "the environment", e);
    struct err why = {0};
    if (file_path(path, sizeof path))
        return err_set(e, ERR_CONFIG, "the path of the S3 credentials file is too long");
    int rc = from_file(out, path, &why);
    if (rc)
        rc = err_set(
            e, ERR_DENIED,
            "no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write a profile (%s)",
            why.text);
    return rc;
}

static void forget(char *secret) {
    if (secret) explicit_bzero(secret, strlen(secret));
    free(secret);
}

void store_s3_auth_fini(struct s3_auth *a) {
    forget(a->access_key);
    forget(a->secret_key);
    forget(a->session_token);
    free(a->source);
    memset(a, 0, sizeof *a);
}
