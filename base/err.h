// SPDX-License-Identifier: Apache-2.0
// Errors: caller-owned, fixed size, set once where the failure is detected, passed up unchanged.
// A function that can fail returns 0 or a negative enum err_code and takes `struct err *e` last.
// Not for programming errors that the compiler can find. Thread rule: one struct err per thread.
#ifndef ORRERY_BASE_ERR_H
#define ORRERY_BASE_ERR_H

#include <stdarg.h>

// The class is all that the launcher acts on: stop (USER, BUG), restart here (RETRY), restart without
// this node (RANK), hand back to the scheduler (JOB).
enum err_class {
    ERR_CLASS_NONE,
    ERR_CLASS_USER,
    ERR_CLASS_RETRY,
    ERR_CLASS_RANK,
    ERR_CLASS_JOB,
    ERR_CLASS_BUG
};

// X(name, class, exit code, words). Exit codes follow sysexits.h where it has one. Where two codes share an
// exit code, the number alone stands for the first. UNAVAILABLE may come back by itself, ABSENT does not.
#define ERR_CODES(X)                                                                                         \
    X(USAGE, USER, 64, "usage")                                                                              \
    X(DATA, USER, 65, "bad data")                                                                            \
    X(MISSING, USER, 66, "missing input")                                                                    \
    X(UNAVAILABLE, RETRY, 69, "unavailable")                                                                 \
    X(BUG, BUG, 70, "bug")                                                                                   \
    X(MEMORY, RANK, 71, "out of memory")                                                                     \
    X(DEVICE, RANK, 72, "device failure")                                                                    \
    X(PEER, RETRY, 73, "peer lost")                                                                          \
    X(IO, JOB, 74, "input/output")                                                                           \
    X(SAVED, JOB, 75, "stopped early and saved")                                                             \
    X(TIMEOUT, RETRY, 76, "deadline passed")                                                                 \
    X(DENIED, USER, 77, "permission")                                                                        \
    X(CONFIG, USER, 78, "bad config")                                                                        \
    X(CONFLICT, USER, 79, "exists already")                                                                  \
    X(ABSENT, JOB, 69, "not on this machine")

enum err_code {
    ERR_OK = 0,
#define ERR_ENUM(name, cls, exit_code, words) ERR_##name,
    ERR_CODES(ERR_ENUM)
#undef ERR_ENUM
        ERR_COUNT
};

#define ERR_TEXT_BYTES 1024

struct err {
    enum err_code code;
    int line;                  // of the source that detected it
    const char *file;          // static storage
    char text[ERR_TEXT_BYTES]; // one line: what happened, where, what to do
};

// Tells compilers and analysers what both setters promise: the result is never 0.
static inline int err_negative(int result) {
    if (result >= 0) __builtin_unreachable();
    return result;
}

// Sets *e unless it already holds an error (the first one survives). Returns -code, so that
// `return err_set(e, ERR_DATA, "...")` is one line. `e` may be NULL. Newlines become spaces.
#define err_set(e, code, ...) err_negative(err_set_at((e), (code), __FILE__, __LINE__, __VA_ARGS__))
int err_set_at(struct err *e, enum err_code code, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

// Like err_set, appends strerror(saved_errno) and picks the code from it: ENOENT MISSING, EACCES/EPERM
// DENIED, ENOMEM MEMORY, else IO.
#define err_errno(e, saved_errno, ...)                                                                       \
    err_negative(err_errno_at((e), (saved_errno), __FILE__, __LINE__, __VA_ARGS__))
int err_errno_at(struct err *e, int saved_errno, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

// Puts "context: " before the text, where a module ends. Returns -e->code.
int err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void err_clear(struct err *e);
enum err_class err_class_of(enum err_code code);
int err_exit_code(enum err_code code);           // ERR_OK -> 0
enum err_code err_from_exit_code(int exit_code); // ERR_OK when it is no code of ours
const char *err_words(enum err_code code);       // "bad data"
const char *err_class_name(enum err_class cls);  // "USER"

#define ERR_CHECK __attribute__((warn_unused_result))

#endif
