/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HOST_RESOLV_CONF_H
#define HOST_RESOLV_CONF_H

/* What /etc/resolv.conf and /etc/hosts say inside. Pure text: nothing is read or written here. */

#include <stddef.h>

struct names_entry {
    const char *address, *name;
};

/* `nameservers` (ended by NULL) followed by what `host` (the host's own file, NULL: none) says of
 * search lists and options. malloc'ed, NULL with ENOMEM. */
char *resolv_conf_text(const char *host, const char *const *nameservers);
/* The lines of /etc/hosts: these entries and none of the host's, whose names are its own affair.
 * malloc'ed, NULL with ENOMEM. */
char *hosts_text(const struct names_entry *entries, size_t count);

/* A whole small file, following symbolic links; NULL with errno. More than 1 MiB: EFBIG. */
char *text_file_read(const char *path);

#endif
