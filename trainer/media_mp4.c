// SPDX-License-Identifier: Apache-2.0
#include "trainer/media_mp4.h"

#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

#include "kernels/plugin.h"

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
    int rc = plugin_find("liborrery_ffmpeg.so", "ORRERY_FFMPEG_PLUGIN", path, sizeof path, e);
    if (!rc) rc = load_plugin(path, &library, &plugin, e);
    if (!rc) rc = plugin->read(bytes, n, want, each, arg, e);
    if (library) dlclose(library);
    return rc;
}
