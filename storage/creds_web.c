// SPDX-License-Identifier: Apache-2.0
// Credentials over HTTP: STS for a web identity token (docs.aws.amazon.com/STS/latest/APIReference,
// AssumeRoleWithWebIdentity), the endpoint of ECS and EKS containers, the metadata service of EC2 instances
// (IMDSv2 only).
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "storage/creds_source.h"
#include "storage/http.h"
#include "storage/sigv4.h"
#include "storage/store_s3.h"

#define STS_MS       10000
#define CONTAINER_MS 5000
#define INSTANCE_MS  2000 // where there is none, nobody answers
#define ROLE_MAX     128

// ---- one exchange.

struct fetch {
    const char *method, *url, *body;
    const char *headers[4];
    int n_headers;
    int64_t deadline_ms;
    const char *ca_bundle;
    int status; // result
};

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t over;
    bool done;
};

static void on_done(struct http_exchange *x) {
    struct waiter *w = x->owner;
    pthread_mutex_lock(&w->lock);
    w->done = true;
    pthread_cond_signal(&w->over);
    pthread_mutex_unlock(&w->lock);
}

static size_t host_bytes(const char *host) {
    const char *end = *host == '[' ? strchr(host, ']') : NULL;
    return end ? (size_t)(end - host) + 1 : strcspn(host, ":/");
}

// Where plain HTTP does not leave this machine, or its host: loopback, ECS, EKS, IMDS.
static bool is_local(const char *url) {
    static const char *const hosts[] = {"localhost",      "[::1]",           "169.254.170.2",
                                        "169.254.170.23", "169.254.169.254", "[fd00:ec2::23]",
                                        "[fd00:ec2::254]"};
    const char *host = strstr(url, "://") ? strstr(url, "://") + 3 : url;
    size_t n = host_bytes(host);
    if (!strncmp(host, "127.", 4)) return strspn(host, "0123456789.") == n;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
        if (strlen(hosts[i]) == n && !strncasecmp(hosts[i], host, n)) return true;
    return false;
}

static int check_url(const char *url, struct err *e) {
    bool plain = !strncasecmp(url, "http://", 7);
    if ((plain && is_local(url)) || !strncasecmp(url, "https://", 8)) return 0;
    return err_set(
        e, ERR_CONFIG,
        "'%.100s': credentials are only fetched over https://, or over http:// from this machine and "
        "the metadata services",
        url);
}

// Within deadline_ms; the reply's body into out. Plain HTTP only for this machine and the
// link-local addresses of containers and instances.
static int fetch_run(struct fetch *f, struct buf *out, struct err *e) {
    struct http *h = NULL;
    struct waiter w = {.lock = PTHREAD_MUTEX_INITIALIZER, .over = PTHREAD_COND_INITIALIZER};
    const struct http_options options = {
        .connections = 1, .stall_ms = f->deadline_ms, .ca_bundle = f->ca_bundle};
    struct http_exchange x = {.method = f->method,
                              .url = f->url,
                              .body = f->body,
                              .body_bytes = f->body ? strlen(f->body) : 0,
                              .deadline_ns = clock_monotonic_ns() + f->deadline_ms * 1000000,
                              .no_proxy = is_local(f->url),
                              .done = on_done,
                              .owner = &w,
                              .text = out};
    for (int i = 0; i < f->n_headers; i++) x.headers[x.n_headers++] = f->headers[i];
    int rc = check_url(f->url, e);
    if (!rc) rc = http_create(&h, &options, e);
    if (rc) return rc;
    http_submit(h, &x);
    pthread_mutex_lock(&w.lock);
    while (!w.done) pthread_cond_wait(&w.over, &w.lock);
    pthread_mutex_unlock(&w.lock);
    http_destroy(h);
    f->status = x.status;
    if (x.end == HTTP_DONE) return 0;
    return err_set(e, ERR_UNAVAILABLE, "%.100s: %s", f->url, x.why);
}

static int fetch_json(struct fetch *f, const char *source, struct creds_set *out, struct err *e) {
    struct buf text;
    buf_init(&text, CREDS_TEXT_MAX);
    int rc = fetch_run(f, &text, e);
    if (!rc && f->status != 200) rc = err_set(e, ERR_DENIED, "%s answers HTTP %d", source, f->status);
    if (!rc) rc = creds_from_json(text.data ? text.data : (char[]){0}, source, out, e);
    creds_wipe(&text);
    return rc;
}

// A file of one line.
static int read_token(const char *path, struct buf *out, struct err *e) {
    int rc = bytes_read_file(path, CREDS_TEXT_MAX - 1, out, e);
    while (!rc && out->len && strchr(" \t\r\n", out->data[out->len - 1])) out->data[--out->len] = 0;
    return rc || out->len ? rc : err_set(e, ERR_DENIED, "%s is empty", path);
}

// ---- web identity.

struct reply {
    struct creds_set *set;
    char access[256], secret[1024], token[16384], expires[64], code[80], message[200];
};

static int on_element(void *arg, const char *path, const char *text, struct err *e) {
    struct reply *r = arg;
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    const struct {
        const char *name;
        char *into;
        size_t n;
    } fields[] = {{"AccessKeyId", r->access, sizeof r->access},
                  {"SecretAccessKey", r->secret, sizeof r->secret},
                  {"SessionToken", r->token, sizeof r->token},
                  {"Expiration", r->expires, sizeof r->expires},
                  {"Code", r->code, sizeof r->code},
                  {"Message", r->message, sizeof r->message}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (strcmp(name, fields[i].name) != 0) continue;
        if (strlen(text) >= fields[i].n) return err_set(e, ERR_DATA, "<%s> of STS is too long", name);
        memcpy(fields[i].into, text, strlen(text) + 1);
    }
    return 0;
}

static int judge_reply(const struct reply *r, int status, const char *source, struct creds_set *out,
                       struct err *e) {
    if (status != 200)
        return err_set(e, ERR_DENIED, "STS refuses %s: HTTP %d %s%s%s", source, status, r->code,
                       r->message[0] ? ": " : "", r->message);
    int rc = creds_set_fill(out, r->access, r->secret, r->token, source, e);
    out->expires_s = creds_parse_time(r->expires);
    if (!rc && !out->expires_s) rc = err_set(e, ERR_DATA, "STS gives no time of expiry for %s", source);
    return rc;
}

static int role_body(const struct creds_role *r, const char *token, struct buf *out, struct err *e) {
    int rc = buf_appends(out, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=", e);
    if (!rc) rc = sigv4_encode(out, r->role_arn, false, e);
    if (!rc) rc = buf_appends(out, "&RoleSessionName=", e);
    if (!rc) rc = sigv4_encode(out, r->session_name ? r->session_name : "orrery", false, e);
    if (!rc) rc = buf_appends(out, "&WebIdentityToken=", e);
    return rc ? rc : sigv4_encode(out, token, false, e);
}

static void sts_url(const struct creds_env *env, const char *region, char *out, size_t n) {
    const char *given = env->values[CREDS_STS_ENDPOINT];
    if (!region) region = env->values[CREDS_REGION];
    if (!region) region = env->values[CREDS_DEFAULT_REGION];
    if (given)
        snprintf(out, n, "%s%s", given, given[strlen(given) - 1] == '/' ? "" : "/");
    else
        snprintf(out, n, "https://sts.%s.amazonaws.com/", region ? region : "us-east-1");
}

int creds_assume_role(const struct creds_env *env, const struct creds_role *r, const char *source,
                      struct creds_set *out, struct err *e) {
    struct buf token, body, text;
    char url[512];
    struct reply *reply = calloc(1, sizeof *reply);
    if (!reply) return err_set(e, ERR_MEMORY, "no memory for credentials");
    buf_init(&token, CREDS_TEXT_MAX);
    buf_init(&body, 4 * CREDS_TEXT_MAX);
    buf_init(&text, CREDS_TEXT_MAX);
    sts_url(env, r->region, url, sizeof url);
    int rc = read_token(r->token_file, &token, e);
    if (!rc) rc = role_body(r, token.data, &body, e);
    struct fetch f = {.method = "POST",
                      .url = url,
                      .body = body.data,
                      .headers = {"content-type: application/x-www-form-urlencoded"},
                      .n_headers = 1,
                      .deadline_ms = STS_MS,
                      .ca_bundle = env->values[CREDS_CA_BUNDLE]};
    if (!rc) rc = fetch_run(&f, &text, e);
    if (!rc) rc = store_s3_xml(&text, on_element, reply, e);
    if (!rc) rc = judge_reply(reply, f.status, source, out, e);
    explicit_bzero(reply, sizeof *reply);
    free(reply);
    creds_wipe(&token);
    creds_wipe(&body);
    creds_wipe(&text);
    return rc;
}

int creds_from_token_file(const struct creds_env *env, struct creds_set *out, struct err *e) {
    const struct creds_role r = {.token_file = env->values[CREDS_TOKEN_FILE],
                                 .role_arn = env->values[CREDS_ROLE_ARN],
                                 .session_name = env->values[CREDS_SESSION_NAME]};
    char source[CREDS_SOURCE_BYTES];
    if (!r.token_file) return 1;
    if (!r.role_arn)
        return err_set(e, ERR_DENIED, "AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN is not");
    snprintf(source, sizeof source, "the web identity token %.150s, role %.150s", r.token_file, r.role_arn);
    return creds_assume_role(env, &r, source, out, e);
}

// ---- containers.

static int authorization(const struct creds_env *env, struct buf *header, struct err *e) {
    struct buf token;
    const char *path = env->values[CREDS_AUTHORIZATION_FILE], *given = env->values[CREDS_AUTHORIZATION];
    if (!path && !given) return 0;
    buf_init(&token, CREDS_TEXT_MAX);
    int rc = path ? read_token(path, &token, e) : buf_appends(&token, given, e);
    for (size_t i = 0; i < token.len && !rc; i++)
        if ((unsigned char)token.data[i] < ' ' || token.data[i] > '~')
            rc = err_set(e, ERR_CONFIG, "the container's authorization token holds a control character");
    if (!rc) rc = buf_appendf(header, e, "authorization: %s", token.data);
    creds_wipe(&token);
    return rc;
}

int creds_from_container(const struct creds_env *env, struct creds_set *out, struct err *e) {
    const char *relative = env->values[CREDS_RELATIVE_URI], *full = env->values[CREDS_FULL_URI];
    char url[1024], source[CREDS_SOURCE_BYTES];
    struct buf header;
    if (!relative && !full) return 1;
    if (relative && *relative != '/')
        return err_set(e, ERR_CONFIG, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI starts with no '/'");
    snprintf(url, sizeof url, "%s%s", relative ? "http://169.254.170.2" : "", relative ? relative : full);
    snprintf(source, sizeof source, "the container's endpoint %.200s", url);
    buf_init(&header, CREDS_TEXT_MAX + 64);
    int rc = authorization(env, &header, e);
    struct fetch f = {.method = "GET",
                      .url = url,
                      .headers = {header.data},
                      .n_headers = header.len != 0,
                      .deadline_ms = CONTAINER_MS,
                      .ca_bundle = env->values[CREDS_CA_BUNDLE]};
    if (!rc) rc = fetch_json(&f, source, out, e);
    creds_wipe(&header);
    return rc;
}

// ---- instances.

static int imds_token(const char *base, struct buf *header, struct err *e) {
    char url[512];
    struct buf token;
    snprintf(url, sizeof url, "%s/latest/api/token", base);
    struct fetch f = {.method = "PUT",
                      .url = url,
                      .headers = {"x-aws-ec2-metadata-token-ttl-seconds: 21600"},
                      .n_headers = 1,
                      .deadline_ms = INSTANCE_MS};
    buf_init(&token, 4096);
    int rc = fetch_run(&f, &token, e);
    bool plain = token.len && strcspn(token.data, " \t\r\n") == token.len;
    if (!rc && (f.status != 200 || !plain))
        rc = err_set(e, ERR_DENIED, "the instance's metadata service answers HTTP %d instead of a token",
                     f.status);
    if (!rc) rc = buf_appendf(header, e, "x-aws-ec2-metadata-token: %s", token.data);
    creds_wipe(&token);
    return rc;
}

static int imds_role(const char *folder, const char *header, char out[ROLE_MAX], struct err *e) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+=,.@_-";
    struct buf text;
    buf_init(&text, 4096);
    struct fetch f = {
        .method = "GET", .url = folder, .headers = {header}, .n_headers = 1, .deadline_ms = INSTANCE_MS};
    int rc = fetch_run(&f, &text, e);
    size_t n = text.data ? strspn(text.data, allowed) : 0;
    if (!rc && (f.status != 200 || !n || n >= ROLE_MAX))
        rc = err_set(e, ERR_DENIED, "this instance has no role (HTTP %d)", f.status);
    if (!rc) snprintf(out, ROLE_MAX, "%.*s", (int)n, text.data);
    buf_fini(&text);
    return rc;
}

int creds_from_instance(const struct creds_env *env, struct creds_set *out, struct err *e) {
    const char *base = env->values[CREDS_IMDS_ENDPOINT], *disabled = env->values[CREDS_IMDS_DISABLED];
    char folder[512], url[640], role[ROLE_MAX], source[CREDS_SOURCE_BYTES], trimmed[256];
    struct buf header;
    if (disabled && !strcasecmp(disabled, "true"))
        return err_set(e, ERR_DENIED, "no file, no container, and AWS_EC2_METADATA_DISABLED is set");
    snprintf(trimmed, sizeof trimmed, "%s", base ? base : "http://169.254.169.254");
    size_t n = strlen(trimmed);
    if (n && trimmed[n - 1] == '/') trimmed[n - 1] = 0;
    snprintf(folder, sizeof folder, "%s/latest/meta-data/iam/security-credentials/", trimmed);
    buf_init(&header, 8192);
    int rc = imds_token(trimmed, &header, e);
    if (!rc) rc = imds_role(folder, header.data, role, e);
    snprintf(url, sizeof url, "%s%s", folder, rc ? "" : role);
    snprintf(source, sizeof source, "the instance's role '%s'", rc ? "" : role);
    struct fetch f = {
        .method = "GET", .url = url, .headers = {header.data}, .n_headers = 1, .deadline_ms = INSTANCE_MS};
    if (!rc) rc = fetch_json(&f, source, out, e);
    creds_wipe(&header);
    return rc;
}
