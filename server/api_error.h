/* From an error value to what a client sees: one table of HTTP statuses and types. */
#ifndef TAMP_SERVER_API_ERROR_H
#define TAMP_SERVER_API_ERROR_H

#include "base/buf.h"
#include "base/err.h"

/* err.reason decides where it is known, else err.code. */
int api_error_status(const struct err *e);
/* {"error":{"message","type","param","code"}}: all four keys, always. */
void api_error_render(const struct err *e, struct buf *out);

#endif
