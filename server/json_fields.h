/* JSON text -> cJSON tree (after json_scan), and getters that check. Keys are compared
 * with their case. A member that is null counts as not given. */
#ifndef TAMP_SERVER_JSON_FIELDS_H
#define TAMP_SERVER_JSON_FIELDS_H

#include "base/err.h"
#include "server/json_scan.h"

#include <stdbool.h>
#include <stddef.h>

struct cJSON;

/* NULL with *e set; the outermost value must be an object, or an array. Freed with
 * cJSON_Delete. */
struct cJSON *json_parse_object(const char *s, size_t n, struct json_scan_info *info,
                                struct err *e);
struct cJSON *json_parse_array(const char *s, size_t n, struct json_scan_info *info, struct err *e);

/* The member, or NULL when absent or null. */
const struct cJSON *json_member(const struct cJSON *object, const char *key);

enum json_field_type { JSON_FIELD_INT, JSON_FIELD_INT64, JSON_FIELD_FLOAT, JSON_FIELD_BOOL };

/* One row of a table of fields: where the checked value goes in the caller's struct.
 * INT writes int, INT64 writes int64_t, FLOAT writes float, BOOL writes bool. */
struct json_field {
    const char *name;
    enum json_field_type type;
    double min, max; /* numbers, both included */
    size_t offset;
};

/* Reads every field of the table that is given; others stay as they are. */
int json_read_fields(const struct cJSON *object, const struct json_scan_info *info,
                     const struct json_field *fields, size_t n, void *out, struct err *e);

/* "a string", "null", ...: for messages. */
const char *json_type_name(const struct cJSON *v);
/* ERR_TYPE with param and "X must be `wanted`, not a number". */
int json_wrong_type(const struct cJSON *v, const char *param, const char *wanted, struct err *e);

#endif
