// SPDX-License-Identifier: Apache-2.0
// What e2e/ckpt_uploads.py needs of a store with multipart uploads:
//   save URL OWNER STEP   a checkpoint of 48 MiB, committed, and the retention pass after it
//   hold URL KEY          an upload under way until a line comes in, then completed
//   list URL              the keys of uploads that are begun and not ended
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/ckpt.h"

#define FLOATS ((size_t)12 << 20)
#define PIECE  ((size_t)4 << 20)

static int save(struct store *s, uint32_t owner, int64_t step, struct err *e) {
    char id[CKPT_ID_BYTES];
    float *data = calloc(FLOATS, sizeof *data);
    struct ckpt_tensor t = {
        .name = "w", .rank = 1, .shape = {(int64_t)FLOATS}, .extent = {(int64_t)FLOATS}, .data = data};
    struct ckpt_state *state = calloc(1, sizeof *state);
    struct buf part;
    if (!data || !state) return err_set(e, ERR_MEMORY, "no memory");
    buf_init(&part, (size_t)64 << 20);
    state->step = step;
    ckpt_new_id(id, step, owner);
    int rc = ckpt_write_part(s, id, 0, &t, 1, &part, e);
    const char *const parts[] = {part.data};
    if (!rc) rc = ckpt_commit(s, id, state, parts, 1, e);
    if (!rc) rc = ckpt_retain(s, 3, owner, e);
    buf_fini(&part);
    free(state);
    free(data);
    return rc;
}

static int hold(struct store *s, const char *key, struct err *e) {
    struct store_writer *w;
    char *data = calloc(1, PIECE), line[16];
    int rc = data ? store_writer_open(s, &w, key, e) : err_set(e, ERR_MEMORY, "no memory");
    if (rc) return rc;
    for (int i = 0; i < 5 && !rc; i++) rc = store_writer_write(w, data, PIECE, e);
    free(data);
    if (rc) {
        store_writer_abort(w);
        return rc;
    }
    puts("held");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) line[0] = 0;
    return store_writer_commit(w, e);
}

static bool tell(void *arg, const char *key) {
    puts(key);
    return false;
}

int main(int argc, char **argv) {
    struct store *s;
    struct err e = {0};
    struct store_options o = {.path_style = true};
    if (argc < 3) return 64;
    int rc = store_open(&s, argv[2], &o, &e);
    if (!rc && argc == 5 && !strcmp(argv[1], "save"))
        rc = save(s, (uint32_t)strtoul(argv[3], NULL, 10), strtol(argv[4], NULL, 10), &e);
    else if (!rc && argc == 4 && !strcmp(argv[1], "hold"))
        rc = hold(s, argv[3], &e);
    else if (!rc)
        rc = store_sweep(s, tell, NULL, NULL, &e);
    if (!rc && store_sweep_flaw(s, &e)) rc = -1;
    if (rc) fprintf(stderr, "%s\n", e.text);
    store_close(s);
    return rc ? 1 : 0;
}
