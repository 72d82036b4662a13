/* A picture of a request: a data URL, checked in the order count, length, base64. What
 * the bytes hold is for the engine to judge. */
#include "server/chat_request_impl.h"

#include "server/base64.h"
#include "server/json_fields.h"
#include "server/limits.h"

#include <string.h>
#include <strings.h>

static int bad_url(const char *param, const char *reason, const char *what, struct err *e)
{
    err_reason(e, ERR_INVALID, reason, "'%s': %s", param, what);
    return err_param(e, "%s", param);
}

/* `param` is the path of the part. */
static int read_detail(const cJSON *image, const char *param, enum image_detail *out, struct err *e)
{
    static const char *const names[] = {
        [DETAIL_AUTO] = "auto", [DETAIL_LOW] = "low", [DETAIL_HIGH] = "high"};
    const cJSON *v = json_member(image, "detail");
    *out = DETAIL_AUTO;
    if (!v) {
        return 0;
    }
    char at[sizeof e->param];
    snprintf(at, sizeof at, "%.80s.image_url.detail", param);
    if (!cJSON_IsString(v)) {
        return json_wrong_type(v, at, "a string", e);
    }
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(v->valuestring, names[i]) == 0) {
            *out = (enum image_detail)i;
            return 0;
        }
    }
    return bad_url(at, "invalid_value", "must be auto, low or high", e);
}

/* Media types a picture may claim; what it is, its own first bytes say. */
static bool media_type_ok(const char *type, size_t n)
{
    return n == 0 || (n > 6 && strncasecmp(type, "image/", 6) == 0) ||
           (n == 24 && strncasecmp(type, "application/octet-stream", 24) == 0);
}

static int decode(struct chat_reader *c, const char *text, size_t n, const char *param,
                  struct err *e)
{
    if (n == 0) {
        return bad_url(param, "invalid_data_url", "the data URL is empty", e);
    }
    if (base64_max_bytes(n) > c->limits->max_image_bytes + 3) {
        err_reason(e, ERR_TOO_LARGE, "image_too_large", "'%s': the picture has more than %zu bytes",
                   param, c->limits->max_image_bytes);
        return err_param(e, "%s", param);
    }
    uint8_t *data = arena_alloc(&c->r->arena, base64_max_bytes(n), 1);
    if (!data) {
        err_no_memory(e, base64_max_bytes(n));
        return err_param(e, "%s", param);
    }
    size_t n_data;
    size_t good = base64_decode(text, n, data, &n_data);
    if (good != n) {
        err_reason(e, ERR_INVALID, "invalid_base64",
                   "'%s': not strict base64 at character %zu of %zu (no white space, standard "
                   "alphabet, padded)",
                   param, good, n);
        return err_param(e, "%s", param);
    }
    c->images[c->n_images] = (struct image_bytes){.data = data, .n = n_data};
    return 0;
}

static int read_data_url(struct chat_reader *c, const char *url, const char *param, struct err *e)
{
    const char *type = url + 5;
    const char *comma = strchr(type, ',');
    if (!comma) {
        return bad_url(param, "invalid_data_url", "a data URL needs a comma before its data", e);
    }
    size_t n = (size_t)(comma - type);
    if (n < 7 || strncasecmp(comma - 7, ";base64", 7) != 0) {
        return bad_url(param, "invalid_data_url", "a data URL must say ;base64", e);
    }
    const char *semicolon = memchr(type, ';', n);
    if (!media_type_ok(type, (size_t)(semicolon - type))) {
        return bad_url(param, "unsupported_image", "the data URL must hold a JPEG or PNG picture",
                       e);
    }
    return decode(c, comma + 1, strlen(comma + 1), param, e);
}

static int read_url(struct chat_reader *c, const char *url, const char *param, struct err *e)
{
    if (strncasecmp(url, "data:", 5) == 0) {
        return read_data_url(c, url, param, e);
    }
    if (strncasecmp(url, "http:", 5) == 0 || strncasecmp(url, "https:", 6) == 0) {
        return bad_url(param, "url_fetch_disabled",
                       "pictures are not fetched; send a data URL (data:image/jpeg;base64,...)", e);
    }
    return bad_url(param, "unsupported_url_scheme",
                   "only data URLs are taken (data:image/jpeg;base64,...)", e);
}

static int check_room(const struct chat_reader *c, const char *param, struct err *e)
{
    if (c->limits->max_images <= 0) {
        err_reason(e, ERR_UNSUPPORTED, "image_input_unsupported",
                   "this model takes text only; start tamp with --mmproj for pictures");
        return err_param(e, "%s", param);
    }
    if (c->n_images == c->limits->max_images) {
        err_reason(e, ERR_TOO_LARGE, "too_many_images", "more than %d pictures in one request",
                   c->limits->max_images);
        return err_param(e, "%s", param);
    }
    return 0;
}

static int bad_box(const char *param, struct err *e)
{
    return bad_url(param, "invalid_value",
                   "must be a list of boxes [left, top, right, bottom] in fractions of the "
                   "picture, 0 <= left < right <= 1 and 0 <= top < bottom <= 1",
                   e);
}

static int read_box(const cJSON *v, const char *param, struct chat_region *out, struct err *e)
{
    float side[4];
    int n = 0;
    for (const cJSON *x = cJSON_IsArray(v) ? v->child : NULL; x; x = x->next) {
        if (n == 4 || !cJSON_IsNumber(x) || !(x->valuedouble >= 0 && x->valuedouble <= 1)) {
            return bad_box(param, e);
        }
        side[n++] = (float)x->valuedouble;
    }
    if (n != 4 || side[0] >= side[2] || side[1] >= side[3]) {
        return bad_box(param, e);
    }
    *out = (struct chat_region){side[0], side[1], side[2], side[3]};
    return 0;
}

/* What of the picture must not merge. */
static int read_regions(struct chat_reader *c, const cJSON *part, const char *param,
                        struct chat_part *out, struct err *e)
{
    const cJSON *v = json_member(part, "roi");
    char at[sizeof e->param];
    int n = 0;
    if (!v) {
        return 0;
    }
    snprintf(at, sizeof at, "%.80s.roi", param);
    if (!cJSON_IsArray(v)) {
        return json_wrong_type(v, at, "an array of boxes", e);
    }
    struct chat_region *regions = arena_alloc(&c->r->arena, LIMIT_REGIONS, sizeof *regions);
    if (!regions) {
        return err_no_memory(e, LIMIT_REGIONS * sizeof *regions);
    }
    for (const cJSON *box = v->child; box; box = box->next, n++) {
        if (n == LIMIT_REGIONS) {
            err_reason(e, ERR_TOO_LARGE, "too_many_regions", "'%s': more than %d boxes", at,
                       LIMIT_REGIONS);
            return err_param(e, "%s", at);
        }
        if (read_box(box, at, &regions[n], e)) {
            return -1;
        }
    }
    out->regions = regions;
    out->n_regions = n;
    return 0;
}

int chat_read_image(struct chat_reader *c, const cJSON *part, const char *param,
                    struct chat_part *out, struct err *e)
{
    char at[sizeof e->param];
    snprintf(at, sizeof at, "%.80s.image_url", param);
    const cJSON *image = json_member(part, "image_url");
    const cJSON *url = cJSON_IsObject(image) ? json_member(image, "url") : image;
    *out = (struct chat_part){.type = CHAT_PART_IMAGE, .image = c->n_images};
    if (cJSON_IsObject(image)) {
        if (read_detail(image, param, &out->detail, e)) {
            return -1;
        }
        snprintf(at, sizeof at, "%.80s.image_url.url", param);
    }
    if (!cJSON_IsString(url)) {
        return json_wrong_type(url, at, "a string", e);
    }
    if (read_regions(c, part, param, out, e) || check_room(c, param, e) ||
        read_url(c, url->valuestring, at, e)) {
        return -1;
    }
    c->n_images++;
    return 0;
}
