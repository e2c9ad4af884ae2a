// SPDX-License-Identifier: Apache-2.0
// What is known of an object's content, held against what came of it: the CRC32C that its sender left beside
// it, else its ETag where that is an MD5.
#ifndef ORRERY_STORAGE_OBJECT_PROOF_H
#define ORRERY_STORAGE_OBJECT_PROOF_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/store.h"

// An ETag as S3 makes it: the MD5 of the whole, or of the MD5s of its parts, "-" and their number.
struct object_tag {
    struct hash_md5 *inner, *outer; // NULL: the ETag is no such thing
    int64_t part, left;             // bytes of a part; what the one under way lacks
    int parts;                      // 0: uploaded in one piece
    char want[33];
};

struct object_proof {
    struct object_tag tag;
    uint32_t want, crc;
    bool summed; // by its CRC32C
};

void object_proof_init(struct object_proof *p, const struct store_result *object);
// Does it need the bytes, in their order? (An MD5 does.) Then this takes them.
bool object_proof_wants(const struct object_proof *p);
void object_proof_update(struct object_proof *p, const char *data, size_t n);
// Else the CRC32C of each piece, in their order.
void object_proof_join(struct object_proof *p, uint32_t crc, size_t bytes);
// DATA when it is another content. Not verified and no error: nothing is known that would prove anything.
int object_proof_check(struct object_proof *p, bool *verified, struct err *e) ERR_CHECK;
void object_proof_fini(struct object_proof *p);

#endif
