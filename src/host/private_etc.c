/* SPDX-License-Identifier: Apache-2.0 */

/* Theory of operation
 *
 * A file bind-mounted over /etc/resolv.conf would not do: when the host renames a new file into its
 * place, the mount is detached with the old one (seen), the mount point may be a symbolic link into
 * another directory, and may not exist. So the directory itself is covered. A tmpfs over /etc
 * carries the two files, and over it goes
 *
 *   - an overlay of that and the host's /etc below. One mount, and /etc looks as it did. It cannot
 *     be had before Linux 5.11, nor where files below /etc are mount points of a surrounding
 *     container (Docker's are), which a private copy would uncover;
 *   - then the tmpfs alone, each entry of the host's /etc bound into it, symbolic links copied.
 *
 * The host's /etc is reached by the working directory meanwhile, since its path is covered. */

#include "host/private_etc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

static int write_file(const char *path, const char *text)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    size_t len = strlen(text);

    if (fd < 0)
        return -errno;
    if (fchmod(fd, 0644) < 0) /* whatever the umask */
        return -errno;
    return write(fd, text, len) == (ssize_t)len ? 0 : -EIO;
}

static int make_dir(const char *path, mode_t mode)
{
    return mkdir(path, mode) < 0 || chmod(path, mode) < 0 ? -errno : 0;
}

static int mount_overlay(mode_t mode, const char *resolv_conf, const char *hosts)
{
    int r = make_dir("/etc/upper", mode);

    if (r == 0)
        r = make_dir("/etc/work", 0700);
    if (r == 0)
        r = write_file("/etc/upper/resolv.conf", resolv_conf);
    if (r == 0)
        r = write_file("/etc/upper/hosts", hosts);
    if (r == 0 && mount("overlay", "/etc", "overlay", MS_NOSUID | MS_NODEV,
                        "lowerdir=.,upperdir=/etc/upper,workdir=/etc/work,userxattr") < 0)
        r = -errno;
    if (r < 0) { /* leave no trace for the other way */
        unlink("/etc/upper/resolv.conf");
        unlink("/etc/upper/hosts");
        rmdir("/etc/upper");
        rmdir("/etc/work/work");
        rmdir("/etc/work");
    }
    return r;
}

/* The host's entry `name`, in the working directory, at the same name in the tmpfs. One that cannot
 * be had is left out. */
static void bind_entry(const char *name)
{
    char target[sizeof "/etc/" + NAME_MAX], link[PATH_MAX];
    struct stat st;

    if (lstat(name, &st) < 0)
        return;
    snprintf(target, sizeof target, "/etc/%s", name);
    if (S_ISLNK(st.st_mode)) {
        ssize_t len = readlink(name, link, sizeof link - 1);

        if (len > 0) {
            link[len] = '\0';
            (void)!symlink(link, target);
        }
        return;
    }
    if (S_ISDIR(st.st_mode) ? mkdir(target, 0755) < 0 : mknod(target, S_IFREG | 0644, 0) < 0)
        return;
    if (mount(name, target, NULL, MS_BIND | MS_REC, NULL) < 0)
        (void)!(S_ISDIR(st.st_mode) ? rmdir(target) : unlink(target));
}

static int bind_entries(const char *resolv_conf, const char *hosts)
{
    DIR *dir = opendir(".");
    struct dirent *entry;
    int r;

    if (!dir)
        return -errno;
    while ((entry = readdir(dir)) != NULL) {
        const char *name = entry->d_name;

        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strcmp(name, "hosts") != 0 &&
            strcmp(name, "resolv.conf") != 0)
            bind_entry(name);
    }
    closedir(dir);
    r = write_file("/etc/resolv.conf", resolv_conf);
    return r < 0 ? r : write_file("/etc/hosts", hosts);
}

int private_etc_mount(const char *resolv_conf, const char *hosts)
{
    _cleanup_close_ int before = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    char path[PATH_MAX];
    bool was_inside;
    struct stat st;
    int r;

    was_inside = getcwd(path, sizeof path) && strncmp(path, "/etc", 4) == 0;
    if (chdir("/etc") < 0 || stat(".", &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (mount("tmpfs", "/etc", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") < 0) {
        r = -errno;
    } else {
        r = mount_overlay(st.st_mode & 07777, resolv_conf, hosts);
        if (r < 0)
            r = bind_entries(resolv_conf, hosts);
    }
    /* Back to where the caller was; what was below /etc is covered now and found by its path. */
    if (was_inside ? chdir(path) < 0 : fchdir(before) < 0)
        (void)!chdir("/");
    return r;
}

int private_etc_mask_resolvers(void)
{
    static const char *const paths[] = {"/run/systemd/resolve", "/run/nscd", "/var/run/nscd"};

    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        if (mount("tmpfs", paths[i], "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY,
                  "mode=0755,size=4k") < 0 &&
            errno != ENOENT && errno != ENOTDIR && errno != EACCES)
            return -errno;
    return 0;
}
