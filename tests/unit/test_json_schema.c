/* grammar/json_schema*.c, regex.c, json_rules.c: which JSON texts a schema takes. The validator of
 * another author judges generated texts in tests/http/test_json_schema.py. */
#include "base/alloc.h"
#include "tests/test.h"
#include "tests/unit/grammar_fixture.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define PERSON                                                                                     \
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":"       \
    "\"integer\"},\"ok\":{\"type\":\"boolean\"}},\"required\":[\"age\"]"
#define NODE                                                                                       \
    "{\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},"      \
    "\"next\":{\"anyOf\":[{\"$ref\":\"#/$defs/node\"},{\"type\":\"null\"}]}},\"required\":["       \
    "\"v\",\"next\"],\"additionalProperties\":false}},\"$ref\":\"#/$defs/node\"}"

TEST(schema_takes, "texts that a schema takes, and texts that it does not")
{
    static const struct {
        const char *schema, *text;
        bool taken;
    } cases[] = {
        {"{}", "[1, {\"a\": null}]", true},
        {"{}", "tru", false},
        {"{\"type\":\"string\"}", "\"a\\n\\u00e9\xc3\xa9\"", true},
        {"{\"type\":\"string\"}", "\"a\n\"", false},
        {"{\"type\":\"string\"}", "\"\\ud83d\\ude00\"", true},
        {"{\"type\":\"string\"}", "\"\\ud83d\"", false},
        {"{\"type\":\"string\"}", "\"\\ud83d\\u0041\"", false},
        {"{\"type\":\"integer\"}", "-12", true},
        {"{\"type\":\"integer\"}", "012", false},
        {"{\"type\":\"integer\"}", "1.0", false},
        {"{\"type\":\"number\"}", "-1.5e+3", true},
        {"{\"type\":\"number\"}", "1.", false},
        {"{\"type\":[\"boolean\",\"null\"]}", "null", true},
        {"{\"type\":\"string\",\"nullable\":true}", "null", true},
        {"{\"enum\":[1,\"a\\\"b\",null,{\"x\":[1]}]}", "{\"x\":[1]}", true},
        {"{\"enum\":[1,\"a\\\"b\",null]}", "\"a\\\"b\"", true},
        {"{\"enum\":[1,2,7],\"minimum\":2}", "7", true},
        {"{\"enum\":[1,2,7],\"minimum\":2}", "1", false},
        {"{\"const\":\"x\"}", "\"x\"", true},
        {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}", "\"\xc3\xa9\\n\"", true},
        {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}", "\"a\"", false},
        {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}", "\"abcd\"", false},
        {"{\"type\":\"string\",\"maxLength\":0}", "\"\"", true},
        {PERSON "}", "{\"name\":\"x\",\"age\":3}", true},
        {PERSON "}", "{\"age\": 3}", true},
        {PERSON "}", "{\"age\":3, \"ok\":true}", true},
        {PERSON "}", "{\"name\":\"x\"}", false},
        {PERSON "}", "{\"age\":3,\"name\":\"x\"}", false}, /* the order of the schema */
        {PERSON "}", "{\"age\":3,\"more\":1}", false},
        {PERSON ",\"additionalProperties\":{\"type\":\"null\"}}", "{\"age\":3,\"more\":null}",
         true},
        {PERSON ",\"additionalProperties\":{\"type\":\"null\"}}", "{\"age\":3,\"ok\":null}", false},
        {PERSON ",\"additionalProperties\":{\"type\":\"null\"}}", "{\"age\":3,\"o\":null}", true},
        {PERSON ",\"additionalProperties\":{\"type\":\"null\"}}", "{\"age\":3,\"okay\":null}",
         true},
        {"{\"properties\":{\"a\":false,\"b\":{\"type\":\"null\"}}}", "{\"b\":null}", true},
        {"{\"properties\":{\"a\":false,\"b\":{\"type\":\"null\"}}}", "{\"a\":1}", false},
        {"{\"type\":\"object\",\"required\":[\"k\"]}", "{\"k\":[]}", true},
        {"{\"type\":\"object\",\"required\":[\"k\"]}", "{}", false},
        {"{\"type\":\"object\"}", "{\"any\":1}", true},
        {"{\"type\":\"object\",\"properties\":{}}", "{}", true},
        {"{\"type\":\"object\",\"patternProperties\":{\"^x\\\\d$\":{\"type\":\"null\"}}}",
         "{\"x1\":null,\"x2\":null}", true},
        {"{\"type\":\"object\",\"patternProperties\":{\"^x\\\\d$\":{\"type\":\"null\"}}}",
         "{\"y1\":null}", false},
        {"{\"type\":\"array\",\"items\":{\"type\":\"null\"},\"minItems\":1,\"maxItems\":2}",
         "[null, null]", true},
        {"{\"type\":\"array\",\"items\":{\"type\":\"null\"},\"minItems\":1,\"maxItems\":2}", "[]",
         false},
        {"{\"type\":\"array\",\"items\":{\"type\":\"null\"},\"minItems\":1,\"maxItems\":2}",
         "[null,null,null]", false},
        {"{\"prefixItems\":[{\"type\":\"null\"},{\"type\":\"boolean\"}],\"minItems\":2}",
         "[null,true]", true},
        {"{\"prefixItems\":[{\"type\":\"null\"},{\"type\":\"boolean\"}],\"minItems\":2}", "[null]",
         false},
        {"{\"prefixItems\":[{\"type\":\"null\"}],\"items\":{\"const\":1}}", "[null,1,1]", true},
        {"{\"prefixItems\":[{\"type\":\"null\"}],\"items\":false}", "[null,1]", false},
        {"{\"anyOf\":[{\"type\":\"null\"},{\"const\":3}]}", "3", true},
        {"{\"oneOf\":[{\"type\":\"null\"},{\"const\":3}]}", "null", true},
        {"{\"oneOf\":[{\"properties\":{\"k\":{\"const\":1}},\"required\":[\"k\"]},"
         "{\"properties\":{\"k\":{\"const\":2},\"x\":{}},\"required\":[\"k\",\"x\"]}]}",
         "{\"k\":2,\"x\":0}", true},
        {"{\"allOf\":[{\"type\":\"integer\",\"minimum\":3},{\"maximum\":5}]}", "5", true},
        {"{\"allOf\":[{\"type\":\"integer\",\"minimum\":3},{\"maximum\":5}]}", "6", false},
        {"{\"allOf\":[{\"properties\":{\"a\":{\"type\":\"null\"}}},{\"properties\":{\"b\":"
         "{\"type\":\"null\"}},\"required\":[\"a\",\"b\"]}]}",
         "{\"a\":null,\"b\":null}", true},
        {"{\"properties\":{\"a\":{\"const\":1}},\"anyOf\":[{\"required\":[\"a\"]},{\"required\":"
         "[\"b\"]}]}",
         "{\"b\":0}", true},
        {"{\"properties\":{\"a\":{\"const\":1}},\"anyOf\":[{\"required\":[\"a\"]},{\"required\":"
         "[\"b\"]}]}",
         "{}", false},
        {NODE, "{\"v\":1,\"next\":{\"v\":2,\"next\":null}}", true},
        {NODE, "{\"v\":1,\"next\":{\"v\":2}}", false},
        {"{\"$ref\":\"#/$defs/a~1b\",\"$defs\":{\"a/b\":{\"const\":1}}}", "1", true},
        {"{\"type\":\"string\",\"pattern\":\"^[A-C]{2}-\\\\d+$\"}", "\"AB-17\"", true},
        {"{\"type\":\"string\",\"pattern\":\"^[A-C]{2}-\\\\d+$\"}", "\"AB-\"", false},
        {"{\"type\":\"string\",\"pattern\":\"b+\"}", "\"abbc\"", true},
        {"{\"type\":\"string\",\"pattern\":\"b+\"}", "\"ac\"", false},
        {"{\"type\":\"string\",\"pattern\":\"^(?:a|\\\"|\\\\\\\\)*$\"}", "\"a\\\"\\\\\"", true},
        {"{\"type\":\"string\",\"pattern\":\"^[^\\\\s,]+$\"}", "\"a-b\"", true},
        {"{\"type\":\"string\",\"format\":\"date\"}", "\"2024-02-28\"", true},
        {"{\"type\":\"string\",\"format\":\"date\"}", "\"2024-02-30\"", false},
        {"{\"type\":\"string\",\"format\":\"date-time\"}", "\"2024-12-31T23:59:59Z\"", true},
        {"{\"type\":\"string\",\"format\":\"uuid\"}", "\"123e4567-e89b-12d3-a456-426614174000\"",
         true},
        {"{\"type\":\"string\",\"format\":\"ipv4\"}", "\"255.10.0.1\"", true},
        {"{\"type\":\"string\",\"format\":\"ipv4\"}", "\"256.1.1.1\"", false},
        {"{\"type\":\"string\",\"format\":\"email\"}", "\"a.b@example.org\"", true},
        {"{\"title\":\"t\",\"description\":\"d\",\"x-mine\":1,\"const\":1}", "1", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct grammar *g = schema(cases[i].schema);
        enum fit got = fit_text(g, cases[i].text);
        if ((got == WHOLE) != cases[i].taken) {
            FAIL("%s and %s: %d", cases[i].schema, cases[i].text, (int)got);
        }
        grammar_unref(g);
    }
}

TEST(schema_refused, "a keyword that cannot be kept is refused with its path")
{
    static const struct {
        const char *schema, *param;
    } cases[] = {
        {"{\"not\":{}}", "S.not"},
        {"{\"if\":{}}", "S.if"},
        {"{\"properties\":{\"a\":{\"not\":{}}}}", "S.properties.a.not"},
        {"{\"items\":{\"contains\":{}}}", "S.items.contains"},
        {"{\"allOf\":[{},{\"dependentRequired\":{}}]}", "S.allOf[1].dependentRequired"},
        {"{\"anyOf\":[{},{\"propertyNames\":{}}]}", "S.anyOf[1].propertyNames"},
        {"{\"$defs\":{\"x\":{\"not\":{}}},\"items\":{\"$ref\":\"#/$defs/x\"}}", "S.$defs.x.not"},
        {"{\"type\":\"text\"}", "S.type"},
        {"{\"type\":3}", "S.type"},
        {"{\"enum\":[]}", "S.enum"},
        {"{\"minLength\":-1}", "S.minLength"},
        {"{\"minLength\":\"1\"}", "S.minLength"},
        {"{\"minItems\":100000}", "S.minItems"},
        {"{\"properties\":[]}", "S.properties"},
        {"{\"required\":[1]}", "S.required"},
        {"{\"properties\":{\"a\":1}}", "S.properties.a"},
        {"{\"$ref\":\"http://example.org/x\"}", "S.$ref"},
        {"{\"$ref\":\"#/$defs/none\"}", "S.$ref"},
        {"{\"uniqueItems\":true}", "S.uniqueItems"},
        {"{\"type\":\"integer\",\"multipleOf\":3}", "S.multipleOf"},
        {"{\"type\":\"number\",\"minimum\":1e300}", "S.minimum"},
        {"{\"exclusiveMinimum\":true}", "S.exclusiveMinimum"},
        {"{\"type\":\"string\",\"format\":\"iri\"}", "S.format"},
        {"{\"type\":\"string\",\"pattern\":\"(?=a)\"}", "S.pattern"},
        {"{\"type\":\"string\",\"pattern\":\"(\"}", "S.pattern"},
        {"{\"type\":\"string\",\"pattern\":\"a**\"}", "S.pattern"},
        {"{\"type\":\"string\",\"pattern\":\"\\\\bx\"}", "S.pattern"},
        {"{\"type\":\"string\",\"pattern\":\"a\",\"maxLength\":3}", "S.pattern"},
        {"{\"type\":\"string\",\"pattern\":\"[ab]*a[ab]{24}\"}", "S"},
        {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", "S.oneOf"},
        {"{\"oneOf\":[{\"type\":\"object\"},{\"properties\":{\"a\":{}}}]}", "S.oneOf"},
        {"{\"patternProperties\":{\"a\":{},\"b\":{}}}", "S.patternProperties"},
        {"{\"type\":\"object\",\"minProperties\":1}", "S.minProperties"},
        {"{\"minimum\":3,\"maximum\":2,\"type\":\"integer\"}", "S"},
        {"{\"type\":\"object\",\"properties\":{\"a\":false},\"required\":[\"a\"]}", "S"},
        {"{\"$ref\":\"#\"}", "S.$ref"},
        {"{\"enum\":[1,2],\"type\":\"string\"}", "S"},
        {"false", "S"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e;
        refused_schema(cases[i].schema, &e);
        if (strcmp(e.param, cases[i].param) != 0) {
            FAIL("%s: param %s, not %s (%s)", cases[i].schema, e.param, cases[i].param, e.msg);
        }
    }
    char deep[8192] = "";
    size_t n = 0;
    for (int i = 0; i < 200; i++) {
        n += (size_t)snprintf(deep + n, sizeof deep - n, "{\"items\":");
    }
    n += (size_t)snprintf(deep + n, sizeof deep - n, "{}");
    memset(deep + n, '}', 200);
    deep[n + 200] = '\0';
    struct err e;
    refused_schema(deep, &e);
    CHECK(strstr(e.msg, "deep"));
}

static void check_range(struct rng *r, bool integer)
{
    static const char *const keywords[2][2] = {{"minimum", "exclusiveMinimum"},
                                               {"maximum", "exclusiveMaximum"}};
    char text[200];
    double step = integer ? 1 : 0.25;
    bool exclusive[2] = {rng_below(r, 2) != 0, rng_below(r, 2) != 0};
    double lo = ((double)rng_below(r, 600) - 300) * step;
    double hi = lo + (double)rng_below(r, 300) * step + step;
    bool has_lo = rng_below(r, 4) != 0;
    bool has_hi = rng_below(r, 4) != 0 || !has_lo;
    int n = snprintf(text, sizeof text, "{\"type\":\"%s\"", integer ? "integer" : "number");
    if (has_lo) {
        n += snprintf(text + n, sizeof text - (size_t)n, ",\"%s\":%g", keywords[0][exclusive[0]],
                      lo);
    }
    if (has_hi) {
        n += snprintf(text + n, sizeof text - (size_t)n, ",\"%s\":%g", keywords[1][exclusive[1]],
                      hi);
    }
    snprintf(text + n, sizeof text - (size_t)n, "}");
    struct err e = ERR_INIT;
    cJSON *tree = cJSON_Parse(text);
    struct grammar *g = grammar_from_schema(tree, "S", &e);
    cJSON_Delete(tree);
    bool some = false;
    for (int i = -2000; i <= 2000; i++) {
        double x = i * step / (integer ? 1 : 2);
        char number[32];
        snprintf(number, sizeof number, "%.15g", x);
        bool inside = !(has_lo && (exclusive[0] ? x <= lo : x < lo)) &&
                      !(has_hi && (exclusive[1] ? x >= hi : x > hi));
        some |= inside;
        if (g && (fit_text(g, number) == WHOLE) != inside) {
            FAIL("%s and %s: inside is %d", text, number, inside);
        }
    }
    CHECK(some == (g != NULL));
    grammar_unref(g);
}

TEST(schema_ranges, "numbers inside random bounds are taken, and no others")
{
    struct rng r;
    rng_init(&r, test_seed());
    for (int i = 0; i < 60; i++) {
        check_range(&r, i % 2 == 0);
    }
}

TEST(schema_random_texts, "random texts of a schema are JSON that the same schema takes")
{
    static const char *const schemas[] = {
        PERSON ",\"additionalProperties\":{\"type\":\"number\",\"minimum\":0.5}}",
        NODE,
        "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":4},\"maxItems\":4}",
        ("{\"type\":\"object\",\"properties\":{\"when\":{\"format\":\"date-time\"},\"id\":{"
         "\"format\":\"uuid\"},\"sku\":{\"pattern\":\"^[A-Z]{2,3}(-[0-9]+)?$\"}}}"),
    };
    struct rng r;
    rng_init(&r, test_seed());
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        struct grammar *g = schema(schemas[i]);
        int n_whole = 0;
        for (int k = 0; k < 50; k++) {
            char text[2001];
            bool whole;
            size_t n = random_text(g, &r, text, sizeof text - 1, &whole);
            text[n] = '\0';
            if (whole) {
                cJSON *tree = cJSON_Parse(text);
                if (!tree) {
                    FAIL("not JSON: %s", text);
                }
                cJSON_Delete(tree);
                n_whole++;
            }
        }
        CHECK_INT(n_whole, >, 5);
        grammar_unref(g);
    }
}

TEST(schema_fuzz, "schemas whose values were shuffled are compiled or refused, never worse")
{
    static const char *const names[] = {"type",    "properties", "items",      "anyOf",  "allOf",
                                        "oneOf",   "$ref",       "enum",       "const",  "minimum",
                                        "pattern", "required",   "minLength",  "format", "maxItems",
                                        "$defs",   "maximum",    "prefixItems"};
    static const char *const values[] = {"{}",
                                         "true",
                                         "\"object\"",
                                         "[\"string\",\"null\"]",
                                         "3",
                                         "-0.5",
                                         "\"#\"",
                                         "\"#/$defs/a\"",
                                         "[{\"type\":\"integer\"},{\"const\":\"x\"}]",
                                         "{\"a\":{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}}",
                                         "[\"a\",\"b\"]",
                                         "\"^a[b-d]*$\"",
                                         "[{\"allOf\":[{\"$ref\":\"#/properties/a\"}]}]",
                                         "null",
                                         "\"date\""};
    struct rng r;
    rng_init(&r, test_seed());
    int n_good = 0;
    for (int round = 0; round < 3000; round++) {
        char text[1024];
        int n = snprintf(text, sizeof text, "{\"q\":0");
        size_t at = rng_below(&r, 18);
        for (uint64_t k = rng_below(&r, 5) + 1; k > 0; k--, at = (at + 1 + rng_below(&r, 3)) % 18) {
            n += snprintf(text + n, sizeof text - (size_t)n, ",\"%s\":%s", names[at],
                          values[rng_below(&r, 15)]);
        }
        snprintf(text + n, sizeof text - (size_t)n, "}");
        cJSON *tree = cJSON_Parse(text);
        struct err e = ERR_INIT;
        struct grammar *g = grammar_from_schema(tree, "S", &e);
        cJSON_Delete(tree);
        if (!g && !(e.code != ERR_NONE && e.param[0])) {
            FAIL("%s: no param in \"%s\"", text, e.msg);
        }
        n_good += g != NULL;
        grammar_unref(g);
    }
    CHECK_INT(n_good, >, 60);
    CHECK_INT(n_good, <, 2900);
}

TEST(schema_no_memory, "whichever allocation fails, there is a grammar or an error")
{
    cJSON *tree = cJSON_Parse(PERSON ",\"additionalProperties\":{\"enum\":[1,2]}}");
    int survived = 0;
    for (long n = 1; n < 2000 && survived < 3; n += n < 100 ? 1 : 7) {
        struct err e = ERR_INIT;
        alloc_fail_at(n);
        struct grammar *g = grammar_from_schema(tree, "S", &e);
        alloc_fail_at(0);
        CHECK(g || e.code == ERR_NO_MEMORY);
        survived += g != NULL;
        grammar_unref(g);
    }
    CHECK_INT(survived, >, 0);
    cJSON_Delete(tree);
}
