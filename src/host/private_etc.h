/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HOST_PRIVATE_ETC_H
#define HOST_PRIVATE_ETC_H

/* Gives the calling thread's mount namespace an /etc of its own: the host's, with these two files
 * in place of whatever is there. Whatever the host does to its files later, they stay; what is
 * written inside stays inside. Without any /etc nothing is done. 0 or negative errno. */
int private_etc_mount(const char *resolv_conf, const char *hosts);

/* Hides the sockets on paths by which libc asks resolvers of the host. 0 or negative errno. */
int private_etc_mask_resolvers(void);

#endif
