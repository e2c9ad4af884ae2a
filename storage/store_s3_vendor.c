// SPDX-License-Identifier: Apache-2.0
// What differs between those who speak S3: one row each.
#include <string.h>
#include <strings.h>

#include "storage/store_s3.h"

static const struct s3_vendor vendors[] = {
    {.name = "aws",
     .title = "AWS S3",
     .suffix = ".amazonaws.com",
     .region = "us-east-1",
     .create_only = {"if-none-match", "*"},
     .complete_create_only = true,
     .crc_header = "x-amz-checksum-crc32c",
     .crc_prefix = ""},
    // Buckets stand in the host name only; the condition has a name of its own.
    {.name = "oss",
     .title = "Alibaba OSS",
     .suffix = ".aliyuncs.com",
     .region = "us-east-1",
     .create_only = {"x-oss-forbid-overwrite", "true"},
     .complete_create_only = true,
     .virtual_only = true},
    {.name = "r2",
     .title = "Cloudflare R2",
     .suffix = ".r2.cloudflarestorage.com",
     .region = "auto",
     .create_only = {"if-none-match", "*"}},
    // HMAC keys and the XML interface; x-amz- and x-goog- headers may not be mixed.
    {.name = "gcs",
     .title = "Google Cloud Storage",
     .suffix = "storage.googleapis.com",
     .dialect = &sigv4_google,
     .service = "storage",
     .region = "auto",
     .create_only = {"x-goog-if-generation-match", "0"},
     .crc_header = "x-goog-hash",
     .crc_prefix = "crc32c="},
    // Honours the condition on PUT, ignores it on completion and takes a wrong checksum without a word
    // (16.2).
    {.name = "rgw", .title = "Ceph RGW", .region = "us-east-1", .create_only = {"if-none-match", "*"}},
    {.name = "minio",
     .title = "MinIO",
     .region = "us-east-1",
     .create_only = {"if-none-match", "*"},
     .crc_header = "x-amz-checksum-crc32c",
     .crc_prefix = ""},
    // Anything else that speaks S3: the least that all of them have.
    {.name = "other", .title = "S3", .region = "us-east-1", .create_only = {"if-none-match", "*"}},
};

static const struct s3_vendor *named(const char *name) {
    for (size_t i = 0; i < sizeof vendors / sizeof *vendors; i++)
        if (!strcmp(vendors[i].name, name)) return &vendors[i];
    return NULL;
}

const struct s3_vendor *store_s3_vendor(const char *name, const char *host, size_t n) {
    if (name && *name) return named(name);
    for (size_t i = 0; i < sizeof vendors / sizeof *vendors; i++) {
        size_t length = vendors[i].suffix ? strlen(vendors[i].suffix) : 0;
        if (length && n >= length && !strncasecmp(host + n - length, vendors[i].suffix, length))
            return &vendors[i];
    }
    return named("other");
}
