/* Tells the service manager that started tamp (systemd, Type=notify) how it is: the protocol
 * of sd_notify(3), one datagram of KEY=VALUE lines to the unix socket that NOTIFY_SOCKET
 * names. */
#ifndef TAMP_CMD_SD_NOTIFY_H
#define TAMP_CMD_SD_NOTIFY_H

#include "base/err.h"

#define SD_NOTIFY_READY    "READY=1"
#define SD_NOTIFY_STOPPING "STOPPING=1"

/* Send `state` to `address`, the value of NOTIFY_SOCKET: an absolute path, or "@name" for an
 * abstract socket. NULL or "" is no service manager: nothing is sent and nothing is wrong.
 * Waits at most a few seconds for a manager that does not read. */
int sd_notify_send(const char *address, const char *state, struct err *e) WARN_UNUSED;

#endif
