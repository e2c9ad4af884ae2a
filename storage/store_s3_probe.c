// SPDX-License-Identifier: Apache-2.0
// What the server at hand honours, found out with a small object: documents and versions say less.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "storage/hash.h"
#include "storage/store_s3_upload.h"

#define REFUSAL_MS 2000 // a refused checksum counts as damage on the way, and is tried again

static int put(struct s3_store *s, const char *key, bool create_only, struct err *e) {
    return store_put(&s->store, key, "probe", 5, create_only, e);
}

// A second PUT under the condition must not replace the first.
static int probe_put(struct s3_store *s, const char *key, bool *honoured, struct err *e) {
    struct err refused = {0};
    int rc = put(s, key, true, e);
    if (rc) return rc;
    rc = put(s, key, true, &refused);
    *honoured = rc == -ERR_CONFLICT;
    if (!rc || *honoured) return 0;
    if (e && !e->code) *e = refused;
    return rc;
}

static int probe_checksum(struct s3_store *s, const char *key, bool *honoured, struct err *e) {
    static const struct s3_vendor common = {.crc_header = "x-amz-checksum-crc32c", .crc_prefix = ""};
    struct s3_op op = {.verb = "PUT",
                       .method = "PUT",
                       .key = key,
                       .body = "probe",
                       .body_bytes = 5,
                       .deadline_ms = REFUSAL_MS};
    struct err refused = {0};
    store_s3_op_checksum(&op, s->vendor->crc_header ? s->vendor : &common, ~hash_crc32c(0, "probe", 5));
    int rc = store_s3_op_run(&op, s, &refused);
    *honoured = rc && op.x.status == 400;
    store_s3_op_fini(&op);
    if (!rc || *honoured) return 0;
    if (e && !e->code) *e = refused;
    return rc;
}

static int complete_again(struct s3_upload *u, bool *honoured, struct err *e) {
    struct err refused = {0};
    char text[320];
    snprintf(text, sizeof text,
             "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>%s</ETag></Part></"
             "CompleteMultipartUpload>",
             u->etags[0]);
    struct s3_op op = {.verb = "COMPLETE UPLOAD",
                       .method = "POST",
                       .key = u->key,
                       .body = text,
                       .body_bytes = strlen(text),
                       .accept = store_s3_error_in_body};
    op.query[op.n_query++] = (struct sigv4_field){"uploadId", u->id};
    op.headers[op.n_headers++] = u->s->vendor->create_only;
    int rc = store_s3_op_run(&op, u->s, &refused);
    store_s3_op_fini(&op);
    *honoured = rc == -ERR_CONFLICT;
    if (!rc) u->id[0] = 0;
    if (!rc || *honoured) return 0;
    if (e && !e->code) *e = refused;
    return rc;
}

static int probe_complete(struct s3_store *s, const char *key, bool *honoured, struct err *e) {
    struct s3_upload u = {.s = s, .key = key};
    const struct s3_part probe = {.data = "probe", .bytes = 5};
    struct s3_slot *part = calloc(1, sizeof *part);
    if (!part) return err_set(e, ERR_MEMORY, "no memory for an upload");
    int rc = store_s3_upload_create(&u, e);
    if (!rc) rc = store_s3_part_start(part, &u, &probe, e);
    if (!rc) rc = store_s3_part_wait(part, e);
    if (!rc) rc = complete_again(&u, honoured, e);
    store_s3_upload_abort(&u);
    free(u.etags);
    free(part);
    return rc;
}

int store_s3_probe(struct store *store, struct store_caps *out, struct err *e) {
    struct s3_store *s = (struct s3_store *)store;
    struct err ignored = {0};
    char key[48];
    pthread_mutex_lock(&store->lock);
    *out = s->caps;
    pthread_mutex_unlock(&store->lock);
    if (out->vendor) return 0;
    snprintf(key, sizeof key, ".orrery-probe-%016llx",
             (unsigned long long)rng_mix64(store->jitter ^ (uint64_t)clock_monotonic_ns()));
    int rc = probe_put(s, key, &out->create_only, e);
    if (!rc) rc = probe_checksum(s, key, &out->checksum, e);
    if (!rc) rc = probe_complete(s, key, &out->create_only_complete, e);
    int removed = store_delete(store, key, rc ? &ignored : e);
    if (!rc) rc = removed;
    if (rc) return rc;
    out->vendor = s->vendor->title;
    pthread_mutex_lock(&store->lock);
    s->caps = *out;
    pthread_mutex_unlock(&store->lock);
    return 0;
}
