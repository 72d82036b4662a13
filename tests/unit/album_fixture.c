#include "tests/unit/album_fixture.h"

#include "base/alloc.h"
#include "tests/test.h"
#include "tests/unit/vision_fixture.h"

#include <string.h>
#include <unistd.h>

static void open_with(struct album *a, struct engine_params p)
{
    static const char *const names[] = {"picture_224.png", "picture_448.png"};
    struct tiny_clip clip = tiny_clip_default;
    char mmproj[64];
    clip.n_out = 64; /* the tiny language model's width */
    clip.image_size = 2 * ALBUM_SIDE;
    tiny_clip_write(&clip, mmproj);
    for (int i = 0; i < 2; i++) {
        char *path = test_golden_path(names[i]);
        a->files[i] = test_read_file(path, &a->bytes[i].n);
        a->bytes[i].data = (const uint8_t *)a->files[i];
        mem_free(path);
    }
    p.model_path = TINY;
    p.mmproj_path = mmproj;
    p.chat_template = "chatml";
    p.n_parallel = 2;
    p.max_queue = 8;
    p.max_images = ALBUM_MOST;
    a->en = open_engine(&p);
    unlink(mmproj);
}

void album_open(struct album *a, size_t cache_bytes, int n_threads, int ctx_size)
{
    open_with(a, (struct engine_params){.image_cache_bytes = cache_bytes,
                                        .prefix_cache_bytes = cache_bytes,
                                        .n_threads = n_threads,
                                        .ctx_size = ctx_size});
}

void album_open_shadow(struct album *a, double share, double target, bool progressive)
{
    open_with(a, (struct engine_params){.shadow_share = share,
                                        .shadow_target = target,
                                        .rollout_progressive = progressive,
                                        .n_threads = 1});
}

void album_close(struct album *a)
{
    engine_close(a->en);
    mem_free(a->files[0]);
    mem_free(a->files[1]);
}

void album_ask(struct album *a, const char *method)
{
    static const int which[ALBUM_MOST] = {0, 1, 0};
    struct err e = ERR_INIT;
    ask(&a->q, "what are these?", "off", 6);
    CHECK_OK(plan_set_method(&a->q.request.plan, MODALITY_IMAGE, method, &e), e);
    for (int i = 0; i < ALBUM_MOST; i++) {
        a->pictures[i] = a->bytes[which[i]];
        a->parts[i] = (struct chat_part){.type = CHAT_PART_IMAGE, .image = i};
    }
    a->parts[ALBUM_MOST] = a->q.part;
    a->q.message.parts = a->parts;
    a->q.message.n_parts = ALBUM_MOST + 1;
    a->q.request.chat.n_images = ALBUM_MOST;
    a->q.request.images = a->pictures;
}

char *album_run(struct album *a, struct job **job)
{
    struct buf text;
    *job = submit(a->en, &a->q);
    if (read_all(*job, &text) != JOB_EVENT_END) {
        FAIL("job failed: %s", job_error(*job)->msg);
    }
    buf_append(&text, "", 0);
    return buf_take(&text, NULL);
}
