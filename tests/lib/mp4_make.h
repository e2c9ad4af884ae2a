// SPDX-License-Identifier: Apache-2.0
// Films for tests, made by FFmpeg's encoders: picture i is a grey of level mp4_level(i) with a brighter left
// half; times are given in ticks of 1/1000 s. Only the tests of MP4 include this.
#ifndef ORRERY_TESTS_MP4_MAKE_H
#define ORRERY_TESTS_MP4_MAKE_H

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/log.h>
#include <libavutil/opt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct mp4_make {
    const char *encoder; // "mpeg4", "mjpeg", "libx264", ...
    int width, height, pictures, b_frames;
    const int64_t *times_ms; // of each picture
    bool fragment;           // one, with a table of contents in front of the pictures
    bool noisy;              // pictures that need many bytes, and no key frame but every twelfth
};

static inline int mp4_level(int i) {
    return 40 + i * 13 % 120;
}

// Y of the left half is 40 above the right half's.
static inline void mp4_paint(AVFrame *f, int i, bool noisy) {
    uint32_t noise = (uint32_t)i;
    for (int y = 0; y < f->height; y++)
        for (int x = 0; x < f->width; x++) {
            noise = noise * 1664525 + 1013904223;
            f->data[0][y * f->linesize[0] + x] =
                (uint8_t)(mp4_level(i) + (x < f->width / 2 ? 40 : 0) + (noisy ? (int)(noise >> 27) : 0));
        }
    for (int y = 0; y < (f->height + 1) / 2; y++) {
        memset(f->data[1] + y * f->linesize[1], 128, (size_t)(f->width + 1) / 2);
        memset(f->data[2] + y * f->linesize[2], 128, (size_t)(f->width + 1) / 2);
    }
}

static inline bool mp4_drain(AVCodecContext *codec, AVFormatContext *out, AVPacket *packet,
                             const AVFrame *frame) {
    if (avcodec_send_frame(codec, frame) < 0) return false;
    while (avcodec_receive_packet(codec, packet) >= 0) {
        packet->stream_index = 0;
        if (!packet->duration)
            packet->duration = codec->time_base.den / 10; // or the edit list would cut the last picture off
        av_packet_rescale_ts(packet, codec->time_base, out->streams[0]->time_base);
        if (av_interleaved_write_frame(out, packet) < 0) return false;
    }
    return true;
}

static inline AVCodecContext *mp4_encoder(const struct mp4_make *m) {
    const AVCodec *codec = avcodec_find_encoder_by_name(m->encoder);
    AVCodecContext *c = codec ? avcodec_alloc_context3(codec) : NULL;
    if (!c) return NULL;
    c->width = m->width;
    c->height = m->height;
    c->time_base = (AVRational){1, codec->id == AV_CODEC_ID_MPEG2VIDEO ? 25 : 1000}; // it knows few rates
    c->pix_fmt = codec->id == AV_CODEC_ID_MJPEG ? AV_PIX_FMT_YUVJ420P : AV_PIX_FMT_YUV420P;
    c->color_range = codec->id == AV_CODEC_ID_MJPEG ? AVCOL_RANGE_JPEG : AVCOL_RANGE_MPEG;
    c->max_b_frames = m->b_frames;
    c->bit_rate = 2000000;
    c->gop_size = 12;
    if (m->noisy) // mpegvideo counts what has changed, x264 takes 0 for never
        (void)av_opt_set(c->priv_data, "sc_threshold", strcmp(m->encoder, "libx264") ? "1000000000" : "0", 0);
    c->thread_count = 1;
    c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER | AV_CODEC_FLAG_BITEXACT;
    if (avcodec_open2(c, codec, NULL) < 0) avcodec_free_context(&c);
    return c;
}

// The film's bytes, malloc'ed; NULL where FFmpeg has no such encoder.
static inline char *mp4_encode(const struct mp4_make *m, size_t *bytes) {
    av_log_set_level(AV_LOG_QUIET);
    AVFormatContext *out = NULL;
    AVCodecContext *codec = mp4_encoder(m);
    AVPacket *packet = av_packet_alloc();
    AVFrame *frame = av_frame_alloc();
    AVDictionary *options = NULL;
    uint8_t *data = NULL;
    char *film = NULL;
    bool ok = codec && avformat_alloc_output_context2(&out, NULL, "mp4", NULL) >= 0;
    AVStream *stream = ok ? avformat_new_stream(out, NULL) : NULL;
    ok = ok && stream && avcodec_parameters_from_context(stream->codecpar, codec) >= 0 &&
         avio_open_dyn_buf(&out->pb) >= 0;
    if (m->fragment) av_dict_set(&options, "movflags", "+frag_custom+empty_moov", 0);
    if (ok) {
        stream->time_base = codec->time_base;
        out->flags |= AVFMT_FLAG_BITEXACT;
        ok = avformat_write_header(out, &options) >= 0;
    }
    frame->width = m->width;
    frame->height = m->height;
    frame->format = codec ? codec->pix_fmt : 0;
    ok = ok && av_frame_get_buffer(frame, 0) >= 0;
    for (int i = 0; i < m->pictures && ok; i++) {
        ok = av_frame_make_writable(frame) >= 0;
        if (ok) mp4_paint(frame, i, m->noisy);
        frame->pts = codec ? av_rescale_q(m->times_ms[i], (AVRational){1, 1000}, codec->time_base) : 0;
        ok = ok && mp4_drain(codec, out, packet, frame);
    }
    ok = ok && mp4_drain(codec, out, packet, NULL) && av_write_trailer(out) >= 0;
    int n = out && out->pb ? avio_close_dyn_buf(out->pb, &data) : 0;
    if (ok && n > 0 && (film = malloc((size_t)n))) memcpy(film, data, *bytes = (size_t)n);
    av_free(data);
    av_dict_free(&options);
    av_frame_free(&frame);
    av_packet_free(&packet);
    avcodec_free_context(&codec);
    avformat_free_context(out);
    return film;
}

#endif
