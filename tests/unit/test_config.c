/* Flags, environment and file together; what the file may hold; keys and exposure. */
#include "base/alloc.h"
#include "base/rng.h"
#include "config/config.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct err e;

/* config_load with flags as one string, separated by spaces. */
static int load(struct config *c, enum config_command command, const char *flags)
{
    static char text[512];
    char *argv[32];
    const char *words[32];
    int argc = 0;
    int n_words;
    snprintf(text, sizeof text, "%s", flags);
    for (char *p = text; *p && argc < 32;) {
        argv[argc++] = p;
        p += strcspn(p, " ");
        if (*p) {
            *p++ = '\0';
        }
    }
    e = (struct err){0};
    return config_load(c, command, NULL, argc, argv, words, &n_words, &e);
}

static char *write_file(const char *text, mode_t mode)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/tamp-test-XXXXXX");
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    CHECK(fchmod(fd, mode) == 0);
    close(fd);
    return path;
}

static int load_file(struct config *c, const char *text)
{
    char flags[128];
    char *path = write_file(text, 0600);
    snprintf(flags, sizeof flags, "--config %s", path);
    int rc = load(c, CONFIG_SERVE, flags);
    unlink(path);
    return rc;
}

TEST(config_defaults,
     "nothing given: loopback, the default model with its projector and its adapter")
{
    struct config c;
    CHECK_OK(load(&c, CONFIG_SERVE, ""), e);
    CHECK_STR(c.host, "127.0.0.1");
    CHECK_INT(c.port, ==, 8080);
    CHECK_STR(c.profile, "balanced");
    CHECK_STR(c.model, CONFIG_DEFAULT_MODEL);
    CHECK_STR(c.mmproj, CONFIG_DEFAULT_MMPROJ);
    CHECK_STR(c.mmproj_lora, CONFIG_DEFAULT_MMPROJ_LORA);
    CHECK_INT(c.log_level, ==, LOG_INFO);
    CHECK(!config_given(&c, "port"));
    config_clear(&c);
}

TEST(config_own_model_is_text_only,
     "--model without --mmproj does not take the default projector and its adapter")
{
    struct config c;
    CHECK_OK(load(&c, CONFIG_SERVE, "--model other.gguf"), e);
    CHECK_STR(c.mmproj, "");
    CHECK_STR(c.mmproj_lora, "");
    config_clear(&c);
    CHECK_OK(load(&c, CONFIG_SERVE, "--mmproj="), e);
    CHECK_STR(c.mmproj, "");
    CHECK_STR(c.mmproj_lora, "");
    config_clear(&c);
    CHECK_OK(load(&c, CONFIG_SERVE, "--mmproj-lora="), e);
    CHECK_STR(c.mmproj, CONFIG_DEFAULT_MMPROJ);
    CHECK_STR(c.mmproj_lora, "");
    config_clear(&c);
}

TEST(config_precedence, "flags > environment > file > defaults")
{
    struct config c;
    char flags[128];
    char *path = write_file("port: 1\nthreads: 1\nparallel: 9\n", 0600);
    setenv("TAMP_PORT", "2", 1);
    setenv("TAMP_THREADS", "2", 1);
    snprintf(flags, sizeof flags, "--port 3 --config %s", path);
    CHECK_OK(load(&c, CONFIG_SERVE, flags), e);
    CHECK_INT(c.port, ==, 3);
    CHECK_INT(c.threads, ==, 2);
    CHECK_INT(c.parallel, ==, 9);
    CHECK_INT(config_origin(&c, "port"), ==, SCHEMA_FLAG);
    CHECK_INT(config_origin(&c, "threads"), ==, SCHEMA_ENV);
    CHECK_INT(config_origin(&c, "parallel"), ==, SCHEMA_FILE);
    config_clear(&c);
    unlink(path);
}

TEST(config_variables_are_no_typos, "TAMP_PORT is not a misspelt TAMP_HOST")
{
    const char *meant = NULL;
    setenv("TAMP_PORT", "1", 1);
    setenv("TAMP_HOST", "127.0.0.1", 1);
    CHECK(schema_env_typo(config_schema(), &meant) == NULL);
    setenv("TAMP_PROT", "1", 1);
    CHECK(schema_env_typo(config_schema(), &meant) != NULL);
    CHECK_STR(meant, "port");
}

TEST(config_file_from_environment, "TAMP_CONFIG names the file; the file cannot name another")
{
    struct config c;
    char *path = write_file("port: 77\n", 0600);
    setenv("TAMP_CONFIG", path, 1);
    CHECK_OK(load(&c, CONFIG_SERVE, ""), e);
    CHECK_INT(c.port, ==, 77);
    config_clear(&c);
    unlink(path);
    unsetenv("TAMP_CONFIG");
    CHECK_INT(load_file(&c, "config: other.yaml\n"), ==, -1);
}

TEST(config_file_profiles, "named profiles with what they start from")
{
    struct config c;
    CHECK_OK(load_file(&c, "# shop\nprofiles:\n  - name: shoes\n    from: product_search\n"
                           "    set: \"image.ratio=2, text.method=off\"\n  - name: plain\n"
                           "profile: shoes\n"),
             e);
    CHECK_INT(c.n_profiles, ==, 2);
    CHECK_STR(c.profiles[0].name, "shoes");
    CHECK_STR(c.profiles[0].from, "product_search");
    CHECK_STR(c.profiles[0].set, "image.ratio=2, text.method=off");
    CHECK(c.profiles[1].from == NULL && c.profiles[1].set == NULL);
    CHECK_STR(c.profile, "shoes");
    config_clear(&c);
}

TEST(config_static_prefix,
     "a text or a file, not both, not nothing; block scalars keep their lines")
{
    struct config c;
    char path[] = "/tmp/tamp-test-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    CHECK_INT(write(fd, "Be kind.\n", 9), ==, 9);
    close(fd);
    char text[400];
    snprintf(text, sizeof text,
             "profiles:\n  - name: a\n    static_prefix: |\n      Be polite.\n      Be brief.\n"
             "  - name: b\n    static_prefix_file: %s\n",
             path);
    CHECK_OK(load_file(&c, text), e);
    CHECK_STR(c.profiles[0].static_prefix, "Be polite.\nBe brief.\n");
    CHECK_STR(c.profiles[1].static_prefix, "Be kind.\n");
    config_clear(&c);
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"profiles:\n  - name: a\n    static_prefix: x\n    static_prefix_file: y\n", "keep one"},
        {"profiles:\n  - name: a\n    static_prefix: \"\"\n", "is empty"},
        {"profiles:\n  - name: a\n    static_prefix_file: /nowhere/at/all\n", "cannot open"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_INT(load_file(&c, cases[i].text), ==, -1);
        if (!strstr(e.msg, cases[i].says)) {
            FAIL("\"%s\" lacks \"%s\"", e.msg, cases[i].says);
        }
    }
    unlink(path);
}

TEST(config_file_mistakes, "each is one line with the file, the line and the cure")
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"port: 80\nprot: 1\n", ":2: no such key 'prot'; did you mean 'port'?"},
        {"zzzzzzzz: 1\n", ":1: no such key 'zzzzzzzz'; config/tamp.yaml lists them"},
        {"host: a\n\nport: many\n", ":3: port: 'many' is not a whole number"},
        {"port: 70000\n", ":1: port: 70000 is out of range; give 0 to 65535"},
        {"log-format: xml\n", ":1: log-format: 'xml' is not known; choose one of: logfmt, json"},
        {"port: 1\nhost: a\nport: 2\n", ":3: 'port' is there twice"},
        {"port: [1, 2]\n", "Expecting STRING"},
        {"port: {a: 1}\n", "Expecting STRING"},
        {"- port\n", "Expecting MAPPING"},
        {"just words\n", "Expecting MAPPING"},
        {"port: [1\n", ":1: "},
        {"port: \x01\n", "control characters"},
        {"port: &a 1\nthreads: *a\n", "anchors and aliases"},
        {"profiles:\n  - from: balanced\n", "name"},
        {"profiles:\n  - name: a\n    form: b\n", ":3: no such key 'form'"},
        {"profiles: yes\n", "Expecting SEQUENCE"},
    };
    struct config c;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (load_file(&c, cases[i].text) == 0) {
            FAIL("accepted: %s", cases[i].text);
        }
        if (!strstr(e.msg, cases[i].says) || !strstr(e.msg, "/tmp/tamp-test-")) {
            FAIL("%s: \"%s\" lacks \"%s\"", cases[i].text, e.msg, cases[i].says);
        }
    }
}

TEST(config_file_that_sets_nothing, "empty, comments alone, the generated default file")
{
    struct config c;
    CHECK_OK(load_file(&c, ""), e);
    config_clear(&c);
    CHECK_OK(load_file(&c, "# nothing\n"), e);
    config_clear(&c);
    struct buf b;
    buf_init(&b, 1 << 16);
    config_print_yaml(&b);
    CHECK_OK(load_file(&c, buf_str(&b)), e);
    CHECK(!config_given(&c, "port"));
    config_clear(&c);
    buf_free(&b);
}

TEST(config_default_file_uncommented, "every key of the default file is one that is accepted")
{
    struct config c;
    struct buf b;
    struct buf on;
    buf_init(&b, 1 << 16);
    buf_init(&on, 1 << 16);
    config_print_yaml(&b);
    for (const char *p = buf_str(&b); *p;) {
        size_t n = strcspn(p, "\n") + 1;
        if (p[0] == '#' && p[1] != ' ') {
            buf_append(&on, p + 1, n - 1);
        } else if (strncmp(p, "#  ", 3) == 0) {
            buf_append(&on, p + 1, n - 1);
        }
        p += n;
    }
    CHECK_OK(load_file(&c, buf_str(&on)), e);
    CHECK_INT(c.port, ==, 8080);
    CHECK_INT(config_origin(&c, "port"), ==, SCHEMA_FILE);
    CHECK_INT(c.n_profiles, ==, 1);
    config_clear(&c);
    buf_free(&b);
    buf_free(&on);
}

TEST(config_file_survives_garbage, "random bytes and cut or changed files are errors, not crashes")
{
    static const char good[] = "port: 80\nprofiles:\n  - name: a\n    set: \"image.ratio=2\"\n";
    struct rng r;
    rng_init(&r, test_seed());
    for (int i = 0; i < 2000; i++) {
        char text[sizeof good];
        size_t n = rng_below(&r, sizeof good);
        memcpy(text, good, sizeof good);
        for (uint64_t k = rng_below(&r, 4); k > 0; k--) {
            text[rng_below(&r, sizeof good - 1)] = (char)rng_below(&r, 256);
        }
        struct config c = {0};
        char *guarded = test_guarded(text, n);
        if (config_read_text(&c, "fuzz", guarded, n, &e)) {
            CHECK(*e.msg != '\0');
        }
        config_clear(&c);
    }
}

TEST(config_file_survives_no_memory, "each allocation fails once; an error every time, no leak")
{
    static const char text[] = "port: 80\nprofiles:\n  - name: a\n    from: b\n";
    struct config c = {0};
    alloc_fail_at(0);
    CHECK_OK(config_read_text(&c, "x", text, sizeof text - 1, &e), e);
    long n = alloc_count();
    config_clear(&c);
    CHECK_INT(n, >, 3);
    for (long i = 1; i <= n; i++) {
        alloc_fail_at(i);
        CHECK_INT(config_read_text(&c, "x", text, sizeof text - 1, &e), ==, -1);
        CHECK_INT(e.code, ==, ERR_NO_MEMORY);
        config_clear(&c);
    }
}

TEST(config_load_survives_no_memory, "each allocation of the whole load fails once")
{
    struct config c;
    alloc_fail_at(0);
    CHECK_OK(load(&c, CONFIG_SERVE, "--host ::1 --api-key k"), e);
    long n = alloc_count();
    config_clear(&c);
    for (long i = 1; i <= n; i++) {
        alloc_fail_at(i);
        CHECK_INT(load(&c, CONFIG_SERVE, "--host ::1 --api-key k"), ==, -1);
    }
}

TEST(config_loopback, "what only this machine can reach")
{
    CHECK(config_is_loopback("127.0.0.1") && config_is_loopback("127.9.9.9"));
    CHECK(config_is_loopback("::1") && config_is_loopback("localhost"));
    CHECK(!config_is_loopback("0.0.0.0") && !config_is_loopback("::"));
    CHECK(!config_is_loopback("10.0.0.1") && !config_is_loopback("127.example.org"));
}

TEST(config_exposure_needs_a_key, "beyond loopback without a key only with --insecure")
{
    struct config c;
    CHECK_INT(load(&c, CONFIG_SERVE, "--host 0.0.0.0"), ==, -1);
    CHECK(strstr(e.msg, "--insecure") != NULL);
    CHECK_INT(load(&c, CONFIG_SERVE, "--host="), ==, -1);
    CHECK_OK(load(&c, CONFIG_SERVE, "--host 0.0.0.0 --insecure"), e);
    config_clear(&c);
    CHECK_OK(load(&c, CONFIG_SERVE, "--host 0.0.0.0 --api-key k"), e);
    CHECK_INT(c.n_api_keys, ==, 1);
    config_clear(&c);
}

TEST(config_key_file, "one key a line; comments, blanks and CR are no keys; open mode is seen")
{
    struct config c;
    char flags[128];
    char *path = write_file("# keys\n\n  first \r\nsecond", 0600);
    snprintf(flags, sizeof flags, "--api-key-file %s", path);
    CHECK_OK(load(&c, CONFIG_SERVE, flags), e);
    CHECK_INT(c.n_api_keys, ==, 2);
    CHECK_STR(c.api_keys[0], "first");
    CHECK_STR(c.api_keys[1], "second");
    CHECK(!c.key_file_readable_by_others);
    config_clear(&c);
    CHECK(chmod(path, 0644) == 0);
    CHECK_OK(load(&c, CONFIG_SERVE, flags), e);
    CHECK(c.key_file_readable_by_others);
    config_clear(&c);
    unlink(path);
    CHECK_INT(load(&c, CONFIG_SERVE, flags), ==, -1);
    path = write_file("# none\n", 0600);
    CHECK_INT(load(&c, CONFIG_SERVE, flags), ==, -1);
    unlink(path);
}

TEST(config_never_prints_keys, "a message about a key does not repeat it")
{
    struct config c;
    char *path = write_file("api-key: [sesame]\n", 0600);
    char flags[128];
    snprintf(flags, sizeof flags, "--config %s", path);
    CHECK_INT(load(&c, CONFIG_SERVE, flags), ==, -1);
    CHECK(strstr(e.msg, "sesame") == NULL);
    unlink(path);
}
