/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzzer's target over files, each whole, and (unless it is large) truncated at every byte
 * and with every byte changed: so that a corpus is an ordinary test.
 *
 *     fuzz-NAME FOLDER... */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FILE_MAX  (1u << 20)
#define SMALL_MAX 4096

/* A copy of exactly this length, so that a sanitizer sees a step beyond. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1);

    if (!exact)
        abort();
    if (size != 0)
        memcpy(exact, data, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

static void run_mutants(uint8_t *data, size_t size)
{
    static const uint8_t changes[] = {0x01, 0x80, 0xff};

    for (size_t i = 0; i < size; i++) {
        run(data, i);
        for (size_t k = 0; k < sizeof changes; k++) {
            data[i] ^= changes[k];
            run(data, size);
            data[i] ^= changes[k];
        }
    }
}

static int run_file(const char *path)
{
    uint8_t *data = malloc(FILE_MAX);
    FILE *file = fopen(path, "rb");
    size_t size;

    if (!data || !file) {
        fprintf(stderr, "%s cannot be read\n", path);
        if (file)
            fclose(file);
        free(data);
        return 1;
    }
    size = fread(data, 1, FILE_MAX, file);
    fclose(file);
    run(data, size);
    if (size <= SMALL_MAX)
        run_mutants(data, size);
    free(data);
    return 0;
}

static int run_folder(const char *folder, unsigned *files)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    char path[4096];
    int status = 0;

    if (!dir) {
        fprintf(stderr, "%s cannot be opened\n", folder);
        return 1;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        status |= run_file(path);
        ++*files;
    }
    closedir(dir);
    return status;
}

int main(int argc, char **argv)
{
    unsigned files = 0;
    int status = 0;

    for (int i = 1; i < argc; i++)
        status |= run_folder(argv[i], &files);
    printf("%u files\n", files);
    return status || files == 0;
}
