/* The inside of the compiler of JSON schemas.
 *
 *   json_schema.c         references, allOf, anyOf, types; the call for users
 *   json_schema_keys.c    keywords: what there is, reading numbers and lists, refusing
 *   json_schema_object.c  objects and arrays
 *   json_schema_scalar.c  strings and numbers
 *   json_schema_match.c   values against schemas (enum), schemas that exclude each other
 *
 * A value often has several schemas to satisfy at once (allOf, a reference with neighbours);
 * so everything is compiled from a list. */
#ifndef TAMP_GRAMMAR_JSON_SCHEMA_IMPL_H
#define TAMP_GRAMMAR_JSON_SCHEMA_IMPL_H

#include "grammar/grammar_impl.h"

#include <cjson/cJSON.h>

#define SCHEMA_MAX_PARTS 32   /* schemas that one value satisfies at once */
#define SCHEMA_MAX_DEPTH 64   /* schemas in schemas; references are followed once each */
#define SCHEMA_MAX_RULES 8192 /* lists that were compiled */
#define SCHEMA_PATH      200

enum {
    TYPE_NULL = 1,
    TYPE_BOOLEAN = 2,
    TYPE_INTEGER = 4,
    TYPE_FRACTION = 8, /* a number that is no integer */
    TYPE_STRING = 16,
    TYPE_ARRAY = 32,
    TYPE_OBJECT = 64,
    TYPE_NUMBER = TYPE_INTEGER | TYPE_FRACTION,
    TYPE_ANY = 127
};

/* A schema and where it stands. Keywords that were dealt with already are left out. */
struct schema_part {
    const cJSON *schema;
    const char *path;
    bool without_any, without_one; /* anyOf, oneOf */
};

struct schema_list {
    struct schema_part items[SCHEMA_MAX_PARTS];
    int n;
};

/* The parts of JSON that schemas call. */
enum json_rule {
    JSON_WS,
    JSON_CHAR,
    JSON_STRING,
    JSON_INTEGER,
    JSON_NUMBER,
    JSON_BOOLEAN,
    JSON_NULL,
    JSON_OBJECT,
    JSON_ARRAY,
    JSON_VALUE,
    JSON_MEMBER,
    JSON_FIRST_FORMAT
};
#define JSON_MAX_RULES 32

struct schema_compiler {
    struct grammar_builder *b;
    const cJSON *root; /* what "#" means */
    const char *root_path;
    struct arena arena;
    int32_t json[JSON_MAX_RULES];
    struct schema_rule *rules; /* lists that have a rule, by hash */
    int n_rules, depth;
};

/* json_schema.c */
/* Adds the JSON rules to the builder. schema_compiler_clear in any case. */
int schema_compiler_init(struct schema_compiler *c, struct grammar_builder *b);
void schema_compiler_clear(struct schema_compiler *c);
/* The rule of a schema document, whose own "#" is itself. */
int32_t schema_document(struct schema_compiler *c, const cJSON *schema, const char *path);
/* The rule of whatever satisfies all of the list. */
int32_t schema_rule_of(struct schema_compiler *c, const struct schema_list *list);
/* References resolved, allOf joined: what is left are plain schemas. False: nothing can
 * satisfy it (a schema `false`), or the builder failed. */
bool schema_flatten(struct schema_compiler *c, const struct schema_list *list,
                    struct schema_list *out);
bool schema_push(struct schema_compiler *c, struct schema_list *list, const cJSON *schema,
                 const char *path);

/* json_schema_keys.c */
const cJSON *schema_key(const struct schema_part *p, const char *name); /* NULL = absent */
/* "path.name" in the arena. */
const char *schema_path(struct schema_compiler *c, const char *path, const char *name);
void schema_refuse(struct schema_compiler *c, const char *path, const char *keyword,
                   const char *why);
/* Every keyword is known, has the right type and is one that can be kept. */
bool schema_check_keys(struct schema_compiler *c, const struct schema_part *p);
int schema_types(struct schema_compiler *c, const struct schema_part *p);
/* Which types the keywords say something about; 0 = none. */
int schema_implied_types(const struct schema_part *p);
/* Largest of the minima, smallest of the maxima; -1 = none. */
int schema_count(struct schema_compiler *c, const struct schema_list *list, const char *name,
                 bool smallest);
/* The target of a "$ref", NULL after refusing. */
const cJSON *schema_target(struct schema_compiler *c, const struct schema_part *p,
                           const char **path);

/* json_schema_object.c, json_schema_scalar.c: from a new state to a new state. */
struct fragment schema_object(struct schema_compiler *c, const struct schema_list *list);
struct fragment schema_array(struct schema_compiler *c, const struct schema_list *list);
struct fragment schema_string(struct schema_compiler *c, const struct schema_list *list);
struct fragment schema_number(struct schema_compiler *c, const struct schema_list *list,
                              bool integer);
/* A JSON text as it is. */
struct fragment schema_literal(struct schema_compiler *c, const cJSON *value);
struct fragment schema_call(struct schema_compiler *c, int32_t rule);

/* json_schema_match.c */
/* Whether the value satisfies all of the list; false also after refusing. */
bool schema_accepts(struct schema_compiler *c, const struct schema_list *list, const cJSON *value);
/* Whether no value that is written for one satisfies the other. */
bool schema_exclusive(struct schema_compiler *c, const struct schema_list *a,
                      const struct schema_list *b, int depth);
int schema_type_of(const cJSON *value);

#endif
