// SPDX-License-Identifier: Apache-2.0
// Saves a toy checkpoint, for the tests of `orrery ckpt`: ckpt_make URL STEP WRITERS.
#include "ckpt_toy.h"

int main(int argc, char **argv) {
    struct err e = {ERR_OK};
    struct store *s;
    int64_t step, writers;
    if (argc != 4 || !bytes_parse_i64(argv[2], &step) || !bytes_parse_i64(argv[3], &writers) || writers < 1 ||
        writers > CKPT_TOY_WRITERS) {
        fprintf(stderr, "usage: %s URL STEP WRITERS\n", argv[0]);
        return 64;
    }
    int rc = store_open(&s, argv[1], NULL, &e);
    if (!rc) {
        rc = ckpt_toy_save(s, step, (int)writers, &e);
        store_close(s);
    }
    if (rc) fprintf(stderr, "%s\n", e.text);
    return rc ? err_exit_code(e.code) : 0;
}
