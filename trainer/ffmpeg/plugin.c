// SPDX-License-Identifier: Apache-2.0
// The one symbol that liborrery_ffmpeg.so shows.
#include "trainer/media_mp4.h"

extern const struct media_mp4_plugin orrery_ffmpeg;
__attribute__((visibility("default"))) const struct media_mp4_plugin orrery_ffmpeg = {
    .abi = MEDIA_MP4_ABI,
    .version = ORRERY_VERSION,
    .read = media_mp4_decode,
};
