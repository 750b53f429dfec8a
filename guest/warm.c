/* Files that the first program of every clone needs, read into the template's page cache. Nothing is run.
 *
 * Clones share the pages, and a program that need not be read first starts sooner by what the block layer takes. */
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "agent.h"

#define MOST (8u << 20) /* bytes of one file that are kept in memory */
#define SMALL (256u << 10) /* a program that is read though nobody named it */
#define SHARE 16 /* of the memory, which part such programs may take */

/* Read the file; gives its first bytes, a page of them. */
static size_t read_file(const char *path, char *head, size_t size)
{
	static char piece[65536];
	size_t done = 0, first = 0;
	ssize_t count;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return 0;
	while (done < MOST && (count = read(fd, piece, sizeof piece)) > 0) {
		if (!done && head)
			memcpy(head, piece, first = (size_t)count < size ? (size_t)count : size);
		done += (size_t)count;
	}
	close(fd);
	return first;
}

/* Where the program header table names the loader (elf(5)); the image may lie, so every offset is checked. */
static const char *loader(const char *head, size_t length)
{
	const Elf64_Ehdr *file = (const void *)head;
	if (length < sizeof *file || memcmp(file->e_ident, ELFMAG, SELFMAG) != 0 || file->e_ident[EI_CLASS] != ELFCLASS64 ||
	    file->e_phentsize != sizeof(Elf64_Phdr) || file->e_phoff > length)
		return NULL;
	for (size_t i = 0; i < file->e_phnum; i++) {
		Elf64_Phdr entry;
		if (file->e_phoff + (i + 1) * sizeof entry > length)
			return NULL;
		memcpy(&entry, head + file->e_phoff + i * sizeof entry, sizeof entry);
		if (entry.p_type == PT_INTERP && entry.p_offset < length && entry.p_filesz <= length - entry.p_offset &&
		    entry.p_filesz && !head[entry.p_offset + entry.p_filesz - 1])
			return head + entry.p_offset;
	}
	return NULL;
}

static void read_program(const char *path)
{
	static char head[4096];
	size_t length = read_file(path, head, sizeof head);
	const char *found = loader(head, length);
	if (found)
		read_file(found, NULL, 0);
}

/* The folder itself, where programs are looked for, and its small files, as long as there is room. */
static void read_folder(const char *path, size_t *room)
{
	DIR *folder = opendir(path);
	struct dirent *entry;
	struct stat info;
	char file[4096];
	while (folder && (entry = readdir(folder))) {
		size_t length = (size_t)snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
		if (length >= sizeof file || lstat(file, &info) < 0 || !S_ISREG(info.st_mode) || info.st_size > SMALL ||
		    (size_t)info.st_size > *room)
			continue;
		*room -= (size_t)info.st_size;
		read_file(file, NULL, 0);
	}
	if (folder)
		closedir(folder);
}

/* warm PATH PROGRAM...: the programs, found as a shell finds them, their loaders, what every program opens, and what
 * else may be run. */
int warm(char **args)
{
	static const char *const always[] = {"/etc/passwd", "/etc/group", "/etc/ld.so.cache", "/lib64/libc.so.6",
		"/usr/lib64/libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6", NULL};
	char path[8192], *folder, *folders = args[1];
	struct sysinfo memory;
	size_t room = sysinfo(&memory) == 0 ? memory.totalram * memory.mem_unit / SHARE : 0;
	for (int i = 0; always[i]; i++)
		read_file(always[i], NULL, 0);
	for (char **program = args + (args[1] ? 2 : 1); *program; program++) {
		if (strchr(*program, '/'))
			read_program(*program);
		for (const char *at = args[1]; *at && !strchr(*program, '/');) {
			size_t length = strcspn(at, ":");
			if (snprintf(path, sizeof path, "%.*s/%s", (int)length, at, *program) < (int)sizeof path)
				read_program(path);
			at += length + (at[length] == ':');
		}
	}
	while ((folder = strsep(&folders, ":")))
		read_folder(folder, &room);
	return 0;
}
