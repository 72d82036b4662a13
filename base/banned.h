/* Calls that have a safer twin become compile errors. Forced into every file of
 * ours by the Makefile (-include), after the system headers it needs. */
#ifndef TAMP_BASE_BANNED_H
#define TAMP_BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* clang with _FORTIFY_SOURCE has it as a macro, which it then refuses to poison */
#undef sprintf
#pragma GCC poison strcpy strcat sprintf vsprintf gets strtok strncpy strncat
#pragma GCC poison atoi atol atof gmtime localtime ctime asctime rand srand

#endif
