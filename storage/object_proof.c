// SPDX-License-Identifier: Apache-2.0
#include "storage/object_proof.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "storage/hash.h"

static bool tag_parse(struct object_tag *g, const char *etag) {
    int end = 0;
    if (sscanf(etag, "\"%32[0-9a-f]\"%n", g->want, &end) == 1 && end == 34 && !etag[end]) return true;
    end = 0;
    return sscanf(etag, "\"%32[0-9a-f]-%5d\"%n", g->want, &g->parts, &end) == 2 && end > 34 && !etag[end] &&
           strlen(g->want) == 32 && g->parts > 0;
}

// The part size is not told. Ours, and those of common programs, that fit the number of parts.
static int64_t guess_part(int64_t bytes, int parts) {
    static const int mebibytes[] = {8, 16, 32, 64, 128, 256, 512, 5, 10, 15, 20, 25, 50, 100};
    for (size_t i = 0; i < sizeof mebibytes / sizeof *mebibytes; i++) {
        int64_t part = (int64_t)mebibytes[i] << 20;
        if ((bytes + part - 1) / part == parts) return part;
    }
    return 0;
}

static void tag_init(struct object_tag *g, const struct store_result *object) {
    memset(g, 0, sizeof *g);
    if (object->opaque || !tag_parse(g, object->etag)) return;
    g->part = g->parts ? guess_part(object->object_bytes, g->parts) : INT64_MAX;
    g->left = g->part;
    if (!g->part) return;
    g->inner = hash_md5_create();
    g->outer = hash_md5_create();
}

static void end_part(struct object_tag *g) {
    unsigned char digest[16];
    hash_md5_end(g->inner, digest);
    hash_md5_update(g->outer, digest, sizeof digest);
    g->left = g->part;
}

static void tag_update(struct object_tag *g, const char *data, size_t n) {
    while (n) {
        size_t take = (int64_t)n < g->left ? n : (size_t)g->left;
        hash_md5_update(g->inner, data, take);
        data += take;
        n -= take;
        g->left -= (int64_t)take;
        if (!g->left) end_part(g);
    }
}

// A guessed part size that does not give the ETag proves nothing.
static int tag_check(struct object_tag *g, bool *verified, struct err *e) {
    unsigned char digest[16];
    char hex[33];
    if (g->parts && g->left != g->part) end_part(g);
    hash_md5_end(g->parts ? g->outer : g->inner, digest);
    bytes_hex(digest, sizeof digest, hex);
    *verified = !strcmp(hex, g->want);
    if (*verified || g->parts) return 0;
    return err_set(
        e, ERR_DATA,
        "what came has MD5 %s, but its ETag is %s: it was damaged on its way, or the server's ETags "
        "are no MD5 (then: --no-verify)",
        hex, g->want);
}

void object_proof_init(struct object_proof *p, const struct store_result *object) {
    int end = 0;
    memset(p, 0, sizeof *p);
    p->summed = sscanf(object->sum, "%8" SCNx32 "%n", &p->want, &end) == 1 && end == 8 && !object->sum[8];
    if (!p->summed) tag_init(&p->tag, object);
}

bool object_proof_wants(const struct object_proof *p) {
    return p->tag.inner && p->tag.outer;
}

void object_proof_update(struct object_proof *p, const char *data, size_t n) {
    if (object_proof_wants(p)) tag_update(&p->tag, data, n);
}

void object_proof_join(struct object_proof *p, uint32_t crc, size_t bytes) {
    p->crc = hash_crc32c_join(p->crc, crc, bytes);
}

int object_proof_check(struct object_proof *p, bool *verified, struct err *e) {
    if (!p->summed) return object_proof_wants(p) ? tag_check(&p->tag, verified, e) : 0;
    *verified = p->crc == p->want;
    if (*verified) return 0;
    return err_set(e, ERR_DATA, "what came has CRC32C %08" PRIx32 ", what was sent had %08" PRIx32, p->crc,
                   p->want);
}

void object_proof_fini(struct object_proof *p) {
    hash_md5_destroy(p->tag.inner);
    hash_md5_destroy(p->tag.outer);
}
