/* Errors are values. The caller brings a `struct err`; a function that can fail
 * returns 0 on success and -1 with the error filled in, and leaves the error
 * untouched on success, so that calls chain. There is no global error state.
 *
 * Three things are kept apart:
 *   code    what kind of failure (one table in server/ maps it to an HTTP status)
 *   reason  a stable word for machines, e.g. "image_truncated"; static storage
 *   msg     one sentence for people: what was wrong, where, what to do
 */
#ifndef TAMP_BASE_ERR_H
#define TAMP_BASE_ERR_H

enum err_code {
    ERR_NONE = 0,
    ERR_INVALID,        /* the value is malformed or not allowed */
    ERR_TYPE,           /* the value has the wrong type */
    ERR_RANGE,          /* the number is outside its range */
    ERR_NOT_FOUND,      /* no such model, route, key, file */
    ERR_UNSUPPORTED,    /* well-formed, but tamp does not do this */
    ERR_TOO_LARGE,      /* over a documented limit */
    ERR_CONTEXT_LENGTH, /* the prompt does not fit the context */
    ERR_FORMAT,         /* a file or picture is damaged or not what it claims */
    ERR_IO,             /* the operating system said no */
    ERR_NO_MEMORY,      /* allocation failed or a memory budget is used up */
    ERR_BUSY,           /* queue full: try again later */
    ERR_UNAVAILABLE,    /* loading or stopping: try again later */
    ERR_CANCELLED,      /* the client left */
    ERR_TIMEOUT,        /* a deadline passed */
    ERR_AUTH,           /* no valid key */
    ERR_FORBIDDEN,      /* valid key or none needed, but not allowed */
    ERR_NUMERICAL,      /* NaN or Inf where a number was needed */
    ERR_INTERNAL,       /* a bug of ours */
    ERR_CODE_COUNT
};

struct err {
    enum err_code code;
    const char *reason; /* static string or NULL */
    char param[128];    /* which input, e.g. "messages[3].content[1].type"; "" = none */
    char msg[512];
};

#define ERR_INIT                                                                                   \
    {                                                                                              \
        .code = ERR_NONE                                                                           \
    }
#define WARN_UNUSED __attribute__((warn_unused_result))

/* Fill `e` (may be NULL) and return -1. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with a machine-readable reason (must be a string literal). */
int err_reason(struct err *e, enum err_code code, const char *reason, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Name the input the error is about; returns -1 for `return err_param(...)`. */
int err_param(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Put "prefix: " before the message that is already there; returns -1. */
int err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Out of memory, with the number of bytes that were asked for; returns -1. */
int err_no_memory(struct err *e, unsigned long long bytes);

/* clang's analyser sees one file at a time: tell it that these always return -1. */
#if defined(__clang_analyzer__) && !defined(ERR_NO_ANALYSER_HINTS)
#define err_set(...)       (err_set(__VA_ARGS__), -1)
#define err_reason(...)    (err_reason(__VA_ARGS__), -1)
#define err_param(...)     (err_param(__VA_ARGS__), -1)
#define err_prefix(...)    (err_prefix(__VA_ARGS__), -1)
#define err_no_memory(...) (err_no_memory(__VA_ARGS__), -1)
#endif

/* Lower-case name of a code ("context_length"), static storage. */
const char *err_code_name(enum err_code code);

#endif
