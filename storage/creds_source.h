// SPDX-License-Identifier: Apache-2.0
// The places that credentials come from. Only creds*.c (and tests) include this.
#ifndef ORRERY_STORAGE_CREDS_SOURCE_H
#define ORRERY_STORAGE_CREDS_SOURCE_H

#include "base/bytes.h"
#include "storage/creds.h"

#define CREDS_TEXT_MAX ((size_t)64 << 10) // of a reply, a token, an output

// The variables that the places read, taken once: other threads may change the environment later.
#define CREDS_VARIABLES(X)                                                                                   \
    X(PROFILE, "AWS_PROFILE")                                                                                \
    X(CREDENTIALS_FILE, "AWS_SHARED_CREDENTIALS_FILE")                                                       \
    X(CONFIG_FILE, "AWS_CONFIG_FILE")                                                                        \
    X(HOME, "HOME")                                                                                          \
    X(TOKEN_FILE, "AWS_WEB_IDENTITY_TOKEN_FILE")                                                             \
    X(ROLE_ARN, "AWS_ROLE_ARN")                                                                              \
    X(SESSION_NAME, "AWS_ROLE_SESSION_NAME")                                                                 \
    X(STS_ENDPOINT, "AWS_ENDPOINT_URL_STS")                                                                  \
    X(REGION, "AWS_REGION")                                                                                  \
    X(DEFAULT_REGION, "AWS_DEFAULT_REGION")                                                                  \
    X(CA_BUNDLE, "AWS_CA_BUNDLE")                                                                            \
    X(RELATIVE_URI, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")                                                \
    X(FULL_URI, "AWS_CONTAINER_CREDENTIALS_FULL_URI")                                                        \
    X(AUTHORIZATION, "AWS_CONTAINER_AUTHORIZATION_TOKEN")                                                    \
    X(AUTHORIZATION_FILE, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")                                          \
    X(IMDS_ENDPOINT, "AWS_EC2_METADATA_SERVICE_ENDPOINT")                                                    \
    X(IMDS_DISABLED, "AWS_EC2_METADATA_DISABLED")

enum creds_variable {
#define CREDS_ENUM(name, text) CREDS_##name,
    CREDS_VARIABLES(CREDS_ENUM)
#undef CREDS_ENUM
        CREDS_N_VARIABLES
};

struct creds_env {
    char *values[CREDS_N_VARIABLES]; // NULL: unset or empty
};

struct creds_set *creds_set_create(void);    // NULL: no memory
void creds_set_destroy(struct creds_set *s); // wipes; NULL-safe
// Checks and copies; `what` names the place in the message. DENIED when a key is missing.
int creds_set_fill(struct creds_set *s, const char *access, const char *secret, const char *token,
                   const char *source, struct err *e) ERR_CHECK;

// A place: 0 with the set filled; 1: not configured here, ask the next; negative: it is, and failed.
int creds_from_profile(const struct creds_env *env, struct creds_set *out, struct err *e) ERR_CHECK;
int creds_from_token_file(const struct creds_env *env, struct creds_set *out, struct err *e) ERR_CHECK;
int creds_from_container(const struct creds_env *env, struct creds_set *out, struct err *e) ERR_CHECK;
int creds_from_instance(const struct creds_env *env, struct creds_set *out, struct err *e) ERR_CHECK;

// AssumeRoleWithWebIdentity, for a profile or the environment.
struct creds_role {
    const char *token_file, *role_arn, *session_name; // session_name NULL: "orrery"
    const char *region;                               // NULL: of the environment
};
int creds_assume_role(const struct creds_env *env, const struct creds_role *r, const char *source,
                      struct creds_set *out, struct err *e) ERR_CHECK;
// The output of a program, started without a shell, and ended if it has not come to its end by then.
#define CREDS_PROCESS_MS 30000
int creds_from_process(const char *command, const char *source, int64_t deadline_ms, struct creds_set *out,
                       struct err *e) ERR_CHECK;
// Splits as a shell would words with quotes and backslashes, and nothing else; NULL-terminated, to be freed
// with its one block. NULL: an open quote, no word, or no memory.
char **creds_split(const char *command);

// {"AccessKeyId": ..., "SecretAccessKey": ..., "Token" or "SessionToken": ..., "Expiration": ...}. Read
// without copies that would outlive the call.
int creds_from_json(char *text, const char *source, struct creds_set *out, struct err *e) ERR_CHECK;
// "2026-11-22T18:03:04Z", with a fraction or an offset; 0: no time.
int64_t creds_parse_time(const char *text);
// The profile's text: one file of "[name]" and "key = value". `named`: a config file, where other profiles
// than "default" are "[profile NAME]". Values point into text.
struct creds_profile {
    const char *name;
    bool found; // the profile is there
    const char *access, *secret, *token, *process, *role_arn, *token_file, *session_name, *region;
    const char *unsupported; // a key of a kind of credentials that is not read
};
void creds_read_profile(char *text, bool named, struct creds_profile *p);

void creds_wipe(struct buf *b); // and frees

#endif
