// SPDX-License-Identifier: Apache-2.0
#include "launcher/store_place.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"

static int no_memory(const char *url, struct err *e) {
    return err_set(e, ERR_MEMORY, "no memory for '%s'", url);
}

const char *store_place_name(const char *key) {
    size_t n = strlen(key);
    while (n && key[n - 1] == '/') n--;
    while (n && key[n - 1] != '/') n--;
    return key + n;
}

static int open_path(struct store_place *p, const char *path, bool to_write,
                     const struct store_options *options, struct err *e) {
    struct stat st;
    size_t n = strlen(path);
    const char *name = store_place_name(path);
    bool slash = n && path[n - 1] == '/';
    p->folder = slash || (!stat(path, &st) && S_ISDIR(st.st_mode));
    char *folder = p->folder      ? strdup(path)
                   : name == path ? strdup(".")
                                  : strndup(path, (size_t)(name - path));
    p->path = strdup(path);
    p->key = strdup(p->folder ? "" : name);
    int rc = folder && p->path && p->key ? 0 : no_memory(p->url, e);
    if (!rc && to_write) rc = bytes_make_dirs(folder, e);
    if (!rc) rc = store_open(&p->store, folder, options, e);
    free(folder);
    return rc;
}

// "s3://bucket/a/b" -> "s3://bucket" and "a/b"; what stands before "s3:" (fault:...) stays.
static int open_bucket(struct store_place *p, const char *bucket, const struct store_options *options,
                       struct err *e) {
    const char *name = strncmp(bucket, "s3://", 5) ? bucket + 3 : bucket + 5;
    const char *slash = strchr(name, '/');
    char *root = slash ? strndup(p->url, (size_t)(slash - p->url)) : strdup(p->url);
    p->key = strdup(slash ? slash + 1 : "");
    size_t n = p->key ? strlen(p->key) : 0;
    p->folder = !n || p->key[n - 1] == '/';
    int rc = root && p->key ? store_open(&p->store, root, options, e) : no_memory(p->url, e);
    free(root);
    return rc;
}

int store_place_open(struct store_place *out, const char *url, bool to_write,
                     const struct store_options *options, struct err *e) {
    *out = (struct store_place){.url = url};
    const char *path = store_local_path(url);
    const char *bucket = !strncmp(url, "s3:", 3)      ? url
                         : !strncmp(url, "fault:", 6) ? strstr(url, ":s3:")
                                                      : NULL;
    int rc;
    if (!*url)
        rc = err_set(e, ERR_USAGE, "an empty URL");
    else if (path)
        rc = open_path(out, path, to_write, options, e);
    else if (bucket)
        rc = open_bucket(out, *bucket == ':' ? bucket + 1 : bucket, options, e);
    else {
        out->folder = true;
        out->key = strdup("");
        rc = out->key ? store_open(&out->store, url, options, e) : no_memory(url, e);
    }
    if (rc) store_place_close(out);
    return rc;
}

char *store_place_realpath(const struct store_place *p) {
    char *out = realpath(p->path, NULL);
    if (out || !*p->path) return out;
    const char *name = store_place_name(p->path);
    char *folder = name == p->path ? strdup(".") : strndup(p->path, (size_t)(name - p->path));
    char *parent = folder ? realpath(folder, NULL) : NULL;
    if (parent && asprintf(&out, "%s/%s", parent, name) < 0) out = NULL;
    free(parent);
    free(folder);
    return out;
}

// Both without links.
static bool holds(const char *folder, const char *path) {
    size_t n = strlen(folder);
    return !strcmp(folder, "/") || (!strncmp(path, folder, n) && (!path[n] || path[n] == '/'));
}

bool store_place_is_whole(const struct store_place *p) {
    const char *home = getenv("HOME");
    if (*p->key || !p->path) return !*p->key;
    char *folder = realpath(p->path, NULL), *own = home && *home ? realpath(home, NULL) : NULL;
    bool whole = folder && holds(folder, own ? own : "/");
    free(folder);
    free(own);
    return whole;
}

void store_place_close(struct store_place *p) {
    store_close(p->store);
    free(p->key);
    free(p->path);
    memset(p, 0, sizeof *p);
}
