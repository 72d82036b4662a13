/* The version, for `tamp version`, /props and tamp_build_info. */
#ifndef TAMP_CONFIG_VERSION_H
#define TAMP_CONFIG_VERSION_H

#define TAMP_VERSION "0.1.0"

#endif
