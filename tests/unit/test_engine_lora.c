/* engine/adapters.c: which adapters a request uses, and that cached rows know theirs. */
#include "base/alloc.h"
#include "tests/test.h"
#include "tests/unit/engine_fixture.h"
#include "tests/unit/vision_fixture.h"

#include <string.h>
#include <unistd.h>

#define LORA "tests/golden/lora/llama-bpe.gguf"
#define TEXT                                                                                       \
    "the order of the jacket and the shoes and the box that was sent to the house of the old man " \
    "who lives in the street behind the church where the red car stands tomorrow"

static struct engine *open_with_lora(float scale, bool pictures_only, const char *mmproj)
{
    const struct engine_lora lora = {.path = LORA, .scale = scale, .pictures_only = pictures_only};
    const struct engine_params p = {.model_path = TINY,
                                    .mmproj_path = mmproj,
                                    .chat_template = "chatml",
                                    .loras = &lora,
                                    .n_loras = 1,
                                    .n_parallel = 2,
                                    .max_queue = 8,
                                    .max_images = 1,
                                    .n_threads = 1,
                                    .prefix_cache_bytes = (size_t)1 << 20,
                                    .speculation = true};
    return open_engine(&p);
}

/* With these scales (NULL: the engine's own). */
static char *answer(struct engine *en, const float *scales, bool cache)
{
    struct question q;
    ask(&q, TEXT, "off", 12);
    q.request.lora_scales = scales;
    q.request.cache_prompt = cache;
    return answer_of(en, &q);
}

static char *plain_answer(void)
{
    struct engine *en = open_tiny_engine(1, 1, 1);
    char *text = answer(en, NULL, false);
    engine_close(en);
    return text;
}

TEST(engine_lora_scales,
     "the server's scale holds until it is changed, a request's own goes before it")
{
    static const float none = 0;
    static const float whole = 1;
    char *plain = plain_answer();
    struct engine *en = open_with_lora(1, false, NULL);
    char *by_server = answer(en, NULL, false);
    char *without = answer(en, &none, false);
    CHECK_STR(without, plain);
    CHECK(strcmp(by_server, plain) != 0);
    engine_set_lora_scales(en, &none);
    char *changed = answer(en, NULL, false);
    CHECK_STR(changed, plain);
    char *asked = answer(en, &whole, false);
    CHECK_STR(asked, by_server);
    struct engine_lora_state state[ENGINE_MAX_LORAS];
    CHECK_INT(engine_loras(en, state), ==, 1);
    CHECK_STR(state[0].path, LORA);
    CHECK_STR(state[0].name, "tamp test llama-bpe, random weights");
    CHECK(state[0].scale <= 0 && !state[0].pictures_only);
    engine_close(en);
    mem_free(plain);
    mem_free(by_server);
    mem_free(without);
    mem_free(changed);
    mem_free(asked);
}

TEST(engine_lora_prefix, "rows in the prefix cache serve requests with the same adapters only")
{
    static const float scales[] = {0, 1, 0.5f};
    char *first[3];
    struct engine *en = open_with_lora(0, false, NULL);
    for (int i = 0; i < 3; i++) {
        first[i] = answer(en, &scales[i], false);
    }
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++) {
            char *again = answer(en, &scales[i], true);
            CHECK_STR(again, first[i]);
            mem_free(again);
        }
    }
    CHECK(strcmp(first[0], first[1]) != 0 && strcmp(first[1], first[2]) != 0);
    for (int i = 0; i < 3; i++) {
        mem_free(first[i]);
    }
    engine_close(en);
}

TEST(engine_lora_pictures, "an adapter for pictures leaves requests without any as they are")
{
    static const float whole = 1;
    static const float none = 0;
    char mmproj[64];
    struct tiny_clip clip = tiny_clip_default;
    clip.n_out = 64;
    tiny_clip_write(&clip, mmproj);
    struct engine *en = open_with_lora(1, true, mmproj);
    unlink(mmproj);
    char *plain = plain_answer();
    char *text = answer(en, NULL, false);
    CHECK_STR(text, plain);
    char *path = test_golden_path("picture_224.png");
    struct image_bytes image;
    char *bytes = test_read_file(path, &image.n);
    image.data = (const uint8_t *)bytes;
    char *answers[3];
    const float *scales[] = {NULL, &whole, &none};
    for (int i = 0; i < 3; i++) {
        struct question q;
        ask(&q, "", "off", 12);
        struct chat_part parts[2] = {q.part, {.type = CHAT_PART_IMAGE, .image = 0}};
        q.message.parts = parts;
        q.message.n_parts = 2;
        q.request.chat.n_images = 1;
        q.request.images = &image;
        q.request.lora_scales = scales[i];
        answers[i] = answer_of(en, &q);
    }
    CHECK_STR(answers[0], answers[1]);
    CHECK(strcmp(answers[0], answers[2]) != 0);
    for (int i = 0; i < 3; i++) {
        mem_free(answers[i]);
    }
    mem_free(plain);
    mem_free(text);
    mem_free(bytes);
    mem_free(path);
    engine_close(en);
}

TEST(engine_lora_refused, "a missing file, a scale out of range and too many are errors")
{
    struct err e = ERR_INIT;
    struct engine_lora loras[ENGINE_MAX_LORAS + 1];
    struct engine_params p = {.model_path = TINY,
                              .chat_template = "chatml",
                              .n_parallel = 1,
                              .loras = loras,
                              .n_loras = 1};
    loras[0] = (struct engine_lora){.path = "/nowhere.gguf", .scale = 1};
    CHECK(!engine_open(&p, &e) && strstr(e.msg, "/nowhere.gguf"));
    e = (struct err)ERR_INIT;
    loras[0] = (struct engine_lora){.path = LORA, .scale = 101};
    CHECK(!engine_open(&p, &e) && strstr(e.msg, "from -100 to 100"));
    e = (struct err)ERR_INIT;
    for (int i = 0; i <= ENGINE_MAX_LORAS; i++) {
        loras[i] = (struct engine_lora){.path = LORA, .scale = 1};
    }
    p.n_loras = ENGINE_MAX_LORAS + 1;
    CHECK(!engine_open(&p, &e) && strstr(e.msg, "at most 8"));
}
