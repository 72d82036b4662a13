/* cmd/lora_list.c: what --lora takes. */
#include "cmd/lora_list.h"
#include "tests/test.h"

#include <string.h>

static void check_list(const char *text, int n, const char *const *paths, const float *scales)
{
    struct lora_list l;
    struct err e = ERR_INIT;
    CHECK_OK(lora_list_parse(&l, text, &e), e);
    CHECK_INT(l.n, ==, n);
    for (int i = 0; i < n; i++) {
        CHECK_STR(l.at[i].path, paths[i]);
        CHECK_DOUBLE(l.at[i].scale, ==, scales[i]);
        CHECK(!l.at[i].pictures_only);
    }
    lora_list_clear(&l);
}

TEST(lora_list_parts, "files with and without a scale, several with commas, a colon in a path")
{
    check_list("", 0, NULL, NULL);
    check_list("a.gguf", 1, (const char *const[]){"a.gguf"}, (const float[]){1});
    check_list("a.gguf:0.5,b.gguf,c:d/e.gguf:-2", 3,
               (const char *const[]){"a.gguf", "b.gguf", "c:d/e.gguf"},
               (const float[]){0.5f, 1, -2});
    check_list("c:/a.gguf", 1, (const char *const[]){"c:/a.gguf"}, (const float[]){1});
}

TEST(lora_list_refused, "a part without a file, a scale out of range or no number, too many")
{
    static const char *const wrong[] = {",",          "a.gguf,",          "a.gguf:101",
                                        "a.gguf:nan", "a:1,b:inf",        "a,b,,c.gguf",
                                        ":0.5",       "a,b,c,d,e,f,g,h,i"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct lora_list l;
        struct err e = ERR_INIT;
        if (!lora_list_parse(&l, wrong[i], &e)) {
            FAIL("'%s' was taken", wrong[i]);
        }
        CHECK(e.msg[0]);
        lora_list_clear(&l);
    }
}

TEST(lora_list_pictures, "the projector's adapter comes last and is for pictures; no path is none")
{
    struct lora_list l;
    struct err e = ERR_INIT;
    CHECK_OK(lora_list_parse(&l, "a.gguf:0", &e), e);
    CHECK_OK(lora_list_add_for_pictures(&l, "", &e), e);
    CHECK_INT(l.n, ==, 1);
    CHECK_OK(lora_list_add_for_pictures(&l, "p.gguf", &e), e);
    CHECK_INT(l.n, ==, 2);
    CHECK_STR(l.at[1].path, "p.gguf");
    CHECK(l.at[1].pictures_only && l.at[1].scale >= 1);
    lora_list_clear(&l);
}
