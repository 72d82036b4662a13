/* The option table: values, sources in any order, flags, what people read. */
#include "base/alloc.h"
#include "config/schema.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

struct sample {
    char *name;
    int64_t count;
    double share;
    bool loud;
    int colour;
    struct schema_list file;
};

static const char *const colours[] = {"red", "green", NULL};

static const struct schema_option options[] = {
    {"name", "One", SCHEMA_STRING, "nobody", 0, 0, NULL, "TEXT", "", "a name",
     offsetof(struct sample, name), 0, 1},
    {"item-count", "One", SCHEMA_INT, "7", -5, 100, NULL, "N", "rows", "how many",
     offsetof(struct sample, count), 0, 3},
    {"share", "Two", SCHEMA_FLOAT, "0.5", 0, 1, NULL, "P", "", "how much",
     offsetof(struct sample, share), 0, 1},
    {"loud", "Two", SCHEMA_BOOL, "false", 0, 0, NULL, "", "", "make noise",
     offsetof(struct sample, loud), 0, 1},
    {"colour", "Two", SCHEMA_ENUM, "green", 0, 0, colours, "NAME", "", "which one",
     offsetof(struct sample, colour), 0, 1},
    {"file", "Two", SCHEMA_LIST, "", 0, 0, NULL, "FILE", "", "a file",
     offsetof(struct sample, file), SCHEMA_FLAG_ONLY, 1},
};
static const struct schema schema = {options, 6};

enum { NAME, COUNT, SHARE, LOUD, COLOUR, FILES };

static struct sample s;
static unsigned char origin[6];
static struct schema_values v = {&schema, &s, origin};
static struct schema_values *const sets[] = {&v};
static struct err e;

static void start(void)
{
    CHECK_OK(schema_defaults(&v, &e), e);
}

/* schema_args with the words of one string, separated by spaces. */
static int parse(unsigned command, const char *flags, const char **words, int *n_words)
{
    static char text[256];
    char *argv[16];
    int argc = 0;
    snprintf(text, sizeof text, "%s", flags);
    for (char *p = text; *p && argc < 16;) {
        argv[argc++] = p;
        p += strcspn(p, " ");
        if (*p) {
            *p++ = '\0';
        }
    }
    return schema_args(sets, 1, command, argc, argv, words, n_words, &e);
}

static void refuse(int option, const char *text, const char *part)
{
    e = (struct err){0};
    CHECK_INT(schema_set(&v, option, text, SCHEMA_FLAG, "--here", &e), ==, -1);
    if (strncmp(e.msg, "--here: ", 8) != 0 || !strstr(e.msg, part)) {
        FAIL("message for '%s' is \"%s\", without \"%s\"", text, e.msg, part);
    }
}

TEST(schema_defaults_go_through_the_same_check, "every default is parsed like any value")
{
    start();
    CHECK_STR(s.name, "nobody");
    CHECK_INT(s.count, ==, 7);
    CHECK_DOUBLE(s.share, ==, 0.5);
    CHECK(!s.loud);
    CHECK_INT(s.colour, ==, 1);
    schema_clear(&v);
    CHECK(s.name == NULL);
}

TEST(schema_refuses_bad_values, "the message says what, where and what to give")
{
    start();
    refuse(COUNT, "12x", "'12x' is not a whole number; give -5 to 100");
    refuse(COUNT, "", "not a whole number");
    refuse(COUNT, "101", "101 is out of range; give -5 to 100");
    refuse(COUNT, "99999999999999999999", "out of range");
    refuse(SHARE, "nan", "not a number");
    refuse(SHARE, "1.5", "out of range");
    refuse(LOUD, "maybe", "neither true nor false");
    refuse(COLOUR, "blue", "choose one of: red, green");
    CHECK_INT(s.count, ==, 7);
    schema_clear(&v);
}

TEST(schema_accepts_limits, "both ends of a range are inside it")
{
    start();
    CHECK_OK(schema_set(&v, COUNT, "-5", SCHEMA_FLAG, "x", &e), e);
    CHECK_INT(s.count, ==, -5);
    CHECK_OK(schema_set(&v, COUNT, "100", SCHEMA_FLAG, "x", &e), e);
    CHECK_INT(s.count, ==, 100);
    schema_clear(&v);
}

TEST(schema_stronger_source_wins, "flag > environment > file > default, in any order")
{
    start();
    CHECK_OK(schema_set(&v, COUNT, "3", SCHEMA_FLAG, "x", &e), e);
    CHECK_OK(schema_set(&v, COUNT, "2", SCHEMA_ENV, "x", &e), e);
    CHECK_OK(schema_set(&v, COUNT, "1", SCHEMA_FILE, "x", &e), e);
    CHECK_INT(s.count, ==, 3);
    CHECK_OK(schema_set(&v, NAME, "file", SCHEMA_FILE, "x", &e), e);
    CHECK_OK(schema_set(&v, NAME, "env", SCHEMA_ENV, "x", &e), e);
    CHECK_STR(s.name, "env");
    CHECK_INT(origin[NAME], ==, SCHEMA_ENV);
    schema_clear(&v);
}

TEST(schema_reads_the_environment, "TAMP_ITEM_COUNT sets item-count; empty is not given")
{
    start();
    setenv("TAMP_ITEM_COUNT", "42", 1);
    setenv("TAMP_NAME", "", 1);
    setenv("TAMP_FILE", "ignored", 1);
    CHECK_OK(schema_env(&v, &e), e);
    CHECK_INT(s.count, ==, 42);
    CHECK_STR(s.name, "nobody");
    CHECK_INT(s.file.n, ==, 0);
    setenv("TAMP_ITEM_COUNT", "tcp://10.0.0.1:80", 1);
    CHECK_INT(schema_env(&v, &e), ==, -1);
    CHECK(strncmp(e.msg, "TAMP_ITEM_COUNT: ", 17) == 0);
    schema_clear(&v);
}

TEST(schema_notices_env_typos, "TAMP_ITEM_CUONT is near an option, TAMP_SHARED is not")
{
    const char *meant = NULL;
    setenv("TAMP_COLOUR", "red", 1);
    setenv("TAMP_SOMETHING_ELSE", "1", 1);
    CHECK(schema_env_typo(&schema, &meant) == NULL);
    setenv("TAMP_ITEM_CUONT", "1", 1);
    CHECK(schema_env_typo(&schema, &meant) != NULL);
    CHECK_STR(meant, "item-count");
}

TEST(schema_args_all_forms, "--a b, --a=b, switches, --no-, lists, --, -")
{
    const char *words[11];
    int n = -1;
    start();
    CHECK_OK(parse(1, "--item-count -1 --share=0.25 word --loud --file a --file=b - -- --name",
                   words, &n),
             e);
    CHECK_INT(s.count, ==, -1);
    CHECK_DOUBLE(s.share, ==, 0.25);
    CHECK(s.loud);
    CHECK_INT(s.file.n, ==, 2);
    CHECK_STR(s.file.items[0], "a");
    CHECK_STR(s.file.items[1], "b");
    CHECK_INT(n, ==, 3);
    CHECK_STR(words[0], "word");
    CHECK_STR(words[1], "-");
    CHECK_STR(words[2], "--name");
    CHECK_OK(parse(1, "--no-loud", words, &n), e);
    CHECK(!s.loud);
    schema_clear(&v);
}

TEST(schema_args_mistakes, "unknown flags name the nearest, a missing value is said")
{
    static const struct {
        const char *flag, *says;
    } cases[] = {
        {"--item-cuont=3", "did you mean --item-count?"},
        {"--colour", "--colour: needs a value (NAME)"},
        {"--zzzzzz", "--help lists them"},
        {"-x", "two dashes"},
        {"--no-name", "no such flag"},
    };
    const char *words[2];
    int n;
    start();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        e = (struct err){0};
        CHECK_INT(parse(1, cases[i].flag, words, &n), ==, -1);
        if (!strstr(e.msg, cases[i].says)) {
            FAIL("%s: \"%s\" lacks \"%s\"", cases[i].flag, e.msg, cases[i].says);
        }
    }
    schema_clear(&v);
}

TEST(schema_args_respects_commands, "a flag of another sub-command is unknown")
{
    const char *words[1];
    int n;
    start();
    CHECK_INT(parse(2, "--name=x", words, &n), ==, -1);
    schema_clear(&v);
}

TEST(schema_prints_every_option, "help, markdown and YAML name each option that belongs there")
{
    struct buf b;
    buf_init(&b, 1 << 16);
    schema_print_help(&schema, 1, &b);
    for (int i = 0; i < schema.n; i++) {
        CHECK(strstr(buf_str(&b), options[i].name) != NULL);
    }
    buf_clear(&b);
    schema_print_help(&schema, 2, &b);
    CHECK(strstr(buf_str(&b), "item-count") && !strstr(buf_str(&b), "colour"));
    buf_clear(&b);
    schema_print_markdown(&schema, &b);
    CHECK(strstr(buf_str(&b), "`TAMP_ITEM_COUNT` | -5 to 100 rows | `7` | how many |") != NULL);
    buf_clear(&b);
    schema_print_yaml(&schema, &b);
    CHECK(strstr(buf_str(&b), "#item-count: 7\n") && !strstr(buf_str(&b), "#file"));
    buf_free(&b);
}

TEST(schema_survives_no_memory, "each allocation fails once; the old value stays")
{
    start();
    alloc_fail_at(1);
    CHECK_INT(schema_set(&v, NAME, "new", SCHEMA_FLAG, "x", &e), ==, -1);
    CHECK_INT(e.code, ==, ERR_NO_MEMORY);
    CHECK_STR(s.name, "nobody");
    for (int n = 1; n <= 2; n++) {
        alloc_fail_at(n);
        CHECK_INT(schema_set(&v, FILES, "a", SCHEMA_FLAG, "x", &e), ==, -1);
        CHECK_INT(s.file.n, ==, 0);
    }
    schema_clear(&v);
}
