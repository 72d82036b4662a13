/* One line per event, logfmt or JSON, to stderr. Fields are typed, so a value
 * can never break the line. Prompts, keys and pictures are never logged. */
#ifndef TAMP_BASE_LOG_H
#define TAMP_BASE_LOG_H

#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_LOGFMT, LOG_JSON };

enum log_kind { LOG_KIND_END, LOG_KIND_STR, LOG_KIND_I64, LOG_KIND_F64 };
struct log_field {
    enum log_kind kind;
    const char *key;
    union {
        const char *s;
        int64_t i;
        double f;
    } v;
};

#define log_str(k, val) ((struct log_field){LOG_KIND_STR, (k), {.s = (val)}})
#define log_i64(k, val) ((struct log_field){LOG_KIND_I64, (k), {.i = (int64_t)(val)}})
#define log_f64(k, val) ((struct log_field){LOG_KIND_F64, (k), {.f = (double)(val)}})

/* log_event(LOG_INFO, "listening", log_str("host", h), log_i64("port", p)); */
#define log_event(level, event, ...)                                                               \
    log_write((level), (event),                                                                    \
              (const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){LOG_KIND_END, 0, {0}}})

void log_init(enum log_format format, enum log_level lowest);
void log_write(enum log_level level, const char *event, const struct log_field *fields);
/* Lines that could not be written (disk full, reader gone) are counted, never waited for. */
uint64_t log_dropped(void);

#endif
