// SPDX-License-Identifier: Apache-2.0
// s3_once OPERATION KEY DEADLINE_MS: one operation on s3://$S3_BUCKET/pre, for servers that misbehave. Prints
// "words of the outcome|peak KiB of memory|message or what was read" and exits with the error's code.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/hash.h"
#include "storage/store.h"
#include "tests/lib/peak_memory.h"
#include "tests/lib/store_collect.h"

#define LARGE ((size_t)17 << 20)

static int write_large(struct store *s, const char *key, struct err *e) {
    char *data = calloc(1, LARGE);
    if (!data) return err_set(e, ERR_MEMORY, "no memory");
    int rc = store_put(s, key, data, LARGE, false, e);
    free(data);
    return rc;
}

// A range that is cut into parts; says its SHA-256.
static int read_large(struct store *s, const char *key, char *out, struct err *e) {
    unsigned char digest[32];
    char *data = malloc(LARGE);
    if (!data) return err_set(e, ERR_MEMORY, "no memory");
    int rc = store_get_range(s, key, 0, LARGE, data, e);
    if (!rc) hash_sha256_of(data, LARGE, digest);
    if (!rc) bytes_hex(digest, sizeof digest, out);
    free(data);
    return rc;
}

static int list_count(struct store *s, char *out, size_t room, struct err *e) {
    struct store_listing l;
    int rc = store_collect(s, "", NULL, &l, e);
    if (rc) return rc;
    snprintf(out, room, "%zu keys", l.n);
    store_listing_fini(&l);
    return 0;
}

static int perform(struct store *s, const char *op, const char *key, char *out, size_t room, struct err *e) {
    struct store_result head;
    if (!strcmp(op, "get")) return store_get_range(s, key, 100, 100, out, e);
    if (!strcmp(op, "parts")) return read_large(s, key, out, e);
    if (!strcmp(op, "head")) return store_head(s, key, &head, e);
    if (!strcmp(op, "put")) return store_put(s, key, "mine", 4, false, e);
    if (!strcmp(op, "create")) return store_put(s, key, "mine", 4, true, e);
    if (!strcmp(op, "delete")) return store_delete(s, key, e);
    if (!strcmp(op, "large")) return write_large(s, key, e);
    if (!strcmp(op, "list")) return list_count(s, out, room, e);
    return err_set(e, ERR_USAGE, "no operation '%s'", op);
}

int main(int argc, char **argv) {
    struct err e = {0};
    struct store *s = NULL;
    char url[512], out[128] = {0};
    const char *bucket = getenv("S3_BUCKET");
    if (argc != 4 || !bucket) {
        fprintf(stderr, "usage: S3_BUCKET=... s3_once OPERATION KEY DEADLINE_MS\n");
        return 64;
    }
    struct store_options options = {.path_style = !getenv("S3_VIRTUAL_HOST"),
                                    .deadline_ms = strtol(argv[3], NULL, 10)};
    snprintf(url, sizeof url, "s3://%s/pre", bucket);
    int rc = store_open(&s, url, &options, &e);
    if (!rc) rc = perform(s, argv[1], argv[2], out, sizeof out, &e);
    printf("%s|%ld|%s\n", err_words(e.code), peak_memory_kib(), rc ? e.text : out);
    store_close(s);
    return err_exit_code(e.code);
}
