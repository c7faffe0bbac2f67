/* SPDX-License-Identifier: Apache-2.0 */
#include "host/resolv_conf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define FILE_MAX ((size_t)1 << 20)

/* A line's end: its '\n' or the text's end. */
static const char *line_end(const char *line)
{
    return strchrnul(line, '\n');
}

static bool begins_with_word(const char *line, const char *word)
{
    size_t len = strlen(word);

    return strncmp(line, word, len) == 0 && (line[len] == ' ' || line[len] == '\t');
}

char *resolv_conf_text(const char *host, const char *const *nameservers)
{
    static const char *const kept[] = {"search", "domain", "options", "sortlist"};
    char *text = NULL;
    size_t len;
    FILE *file = open_memstream(&text, &len);

    if (!file)
        return NULL;
    for (; *nameservers; nameservers++)
        fprintf(file, "nameserver %s\n", *nameservers);
    for (const char *line = host, *end; line && *line; line = *end ? end + 1 : end) {
        end = line_end(line);
        for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
            if (begins_with_word(line, kept[i]))
                fprintf(file, "%.*s\n", (int)(end - line), line);
    }
    return fclose(file) == 0 ? text : NULL;
}

char *hosts_text(const struct names_entry *entries, size_t count)
{
    char *text = NULL;
    size_t len;
    FILE *file = open_memstream(&text, &len);

    if (!file)
        return NULL;
    for (size_t i = 0; i < count; i++)
        fprintf(file, "%s %s\n", entries[i].address, entries[i].name);
    return fclose(file) == 0 ? text : NULL;
}

char *text_file_read(const char *path)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    _cleanup_free_ char *text = NULL;
    size_t len = 0, capacity = 4096;

    if (fd < 0)
        return NULL;
    for (;;) {
        char *grown = realloc(text, capacity + 1);
        ssize_t n;

        if (!grown)
            return NULL;
        text = grown;
        n = read(fd, text + len, capacity - len);
        if (n < 0)
            return NULL;
        if (n == 0)
            break;
        len += (size_t)n;
        if (len == FILE_MAX) {
            errno = EFBIG;
            return NULL;
        }
        if (len == capacity)
            capacity *= 2;
    }
    text[len] = '\0';
    return TAKE_PTR(text);
}
