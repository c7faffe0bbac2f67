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
/* `entries` whose address-and-name the host's file does not settle, then that file (NULL: none) as
 * it is. An entry that is `always` given comes first, so that it wins over the host's. */
char *hosts_text(const char *host, const struct names_entry *always, size_t always_count,
                 const struct names_entry *missing, size_t missing_count);

/* A whole small file, following symbolic links; NULL with errno. More than 1 MiB: EFBIG. */
char *text_file_read(const char *path);

#endif
