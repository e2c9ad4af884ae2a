// SPDX-License-Identifier: Apache-2.0
// One multipart upload and its parts under way. Only store_s3_upload.c and store_s3_file.c include this.
#ifndef ORRERY_STORAGE_STORE_S3_UPLOAD_H
#define ORRERY_STORAGE_STORE_S3_UPLOAD_H

#include "storage/store_s3.h"

#define S3_PARTS_MAX       10000
#define S3_UPLOAD_ID_BYTES 1024

struct s3_upload {
    struct s3_store *s;
    const char *key;
    const char *sum;             // left beside the object; NULL: none
    char id[S3_UPLOAD_ID_BYTES]; // "": not yet created
    char (*etags)[72];           // of the parts that are done
    int parts;
    int64_t bytes;
};

// One part under way.
struct s3_slot {
    struct s3_upload *u;
    struct s3_op op;
    bool busy;
    int part;
    char number[16];
    char *memory; // its owner's
    size_t capacity, fill;
};

int store_s3_upload_create(struct s3_upload *u, struct err *e) ERR_CHECK; // at once when there is an id

// What a part is: from 0 on, `parts` being the next, or one that was sent before.
struct s3_part {
    int number;
    const void *data; // or `give`, as an s3_op's
    int (*give)(void *give_arg, size_t at, void *into, size_t n, struct err *e);
    void *give_arg;
    size_t bytes;
    bool hashed; // as an s3_op's
};
int store_s3_part_start(struct s3_slot *p, struct s3_upload *u, const struct s3_part *part,
                        struct err *e) ERR_CHECK;
int store_s3_part_wait(struct s3_slot *p, struct err *e) ERR_CHECK;
int store_s3_upload_complete(struct s3_upload *u, int64_t deadline_ms, struct err *e) ERR_CHECK;
void store_s3_upload_abort(struct s3_upload *u);
size_t store_s3_part_bytes(size_t bytes); // of an object of so many

#endif
