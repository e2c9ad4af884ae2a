// SPDX-License-Identifier: Apache-2.0
#include "trainer/media_mp4.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PLUGIN_NAME "liborrery_ffmpeg.so"

static int find_plugin(char *path, size_t bytes, struct err *e) {
    const char *given = getenv("ORRERY_FFMPEG_PLUGIN");
    if (given && given[0]) {
        if (snprintf(path, bytes, "%s", given) < (int)bytes) return 0;
        return err_set(e, ERR_USAGE, "ORRERY_FFMPEG_PLUGIN is too long for a path");
    }
    ssize_t n = readlink("/proc/self/exe", path, bytes - sizeof PLUGIN_NAME);
    if (n <= 0) return err_set(e, ERR_ABSENT, "cannot tell where this program lies, to find " PLUGIN_NAME);
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    size_t at = slash ? (size_t)(slash - path) + 1 : 0;
    snprintf(path + at, bytes - at, "%s", PLUGIN_NAME);
    return 0;
}

// RTLD_NODELETE: loaded once, however often this is called. *library is to be closed.
static int load_plugin(const char *path, void **library, const struct media_mp4_plugin **out, struct err *e) {
    *library = NULL;
    if (access(path, R_OK))
        return err_set(e, ERR_ABSENT,
                       "an MP4, and no decoder for it: %s is not there; install libavformat-dev "
                       "libavcodec-dev libswscale-dev libavutil-dev and build with -DORRERY_FFMPEG=ON",
                       path);
    *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!*library) {
        const char *why = dlerror();
        return err_set(e, ERR_ABSENT,
                       "the MP4 decoder does not load (%s); install FFmpeg's libraries (libavformat, "
                       "libavcodec, libswscale, libavutil) that it was built with",
                       why ? why : path);
    }
    *out = dlsym(*library, "orrery_ffmpeg");
    if (!*out) return err_set(e, ERR_ABSENT, "%s is no plug-in of Orrery's", path);
    if ((*out)->abi == MEDIA_MP4_ABI && !strcmp((*out)->version, ORRERY_VERSION)) return 0;
    return err_set(e, ERR_ABSENT, "%s is of another build than this program; build both from one source",
                   path);
}

int media_mp4_read(const void *bytes, size_t n, const struct media_mp4_want *want, media_picture_fn *each,
                   void *arg, struct err *e) {
    char path[4096];
    void *library = NULL;
    const struct media_mp4_plugin *plugin = NULL;
    int rc = find_plugin(path, sizeof path, e);
    if (!rc) rc = load_plugin(path, &library, &plugin, e);
    if (!rc) rc = plugin->read(bytes, n, want, each, arg, e);
    if (library) dlclose(library);
    return rc;
}
