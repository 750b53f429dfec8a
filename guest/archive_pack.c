/* pack PATH [whole | own]: a tar stream of PATH, named by its last component, on stdout; `whole`: of everything
 * below PATH without what is mounted there; `own`: without the places where something is mounted, too. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>
/* musl has struct statx from 1.2.4 on; before, the kernel's own. */
#ifndef STATX_BASIC_STATS
#include <linux/stat.h>
#endif

#include "agent.h"
#include "archive.h"

#define PATH_SIZE 8192
#define ATTRIBUTES 65536
#ifndef STATX_ATTR_MOUNT_ROOT
#define STATX_ATTR_MOUNT_ROOT 0x2000
#endif

static struct link {
	struct link *next;
	dev_t device;
	ino_t inode;
	char path[];
} *links;

static bool skip_mounts, skip_places;

static void number(char *field, size_t size, unsigned long long value)
{
	snprintf(field, size, "%0*llo", (int)size - 1, value);
}

static void checksum(struct header *header)
{
	unsigned sum = 0;
	memset(header->checksum, ' ', sizeof header->checksum);
	for (size_t i = 0; i < sizeof *header; i++)
		sum += ((unsigned char *)header)[i];
	snprintf(header->checksum, sizeof header->checksum, "%06o", sum);
}

static void pad(unsigned long long size)
{
	static const char zeros[BLOCK];
	fwrite(zeros, 1, -size % BLOCK, stdout);
}

/* Append a pax record: `LENGTH KEY=VALUE\n`, the length counts itself. */
static void record(char **buffer, size_t *length, const char *key, const void *value, size_t size)
{
	char text[32];
	size_t body = strlen(key) + size + 3, total = body;
	do
		total = body + (size_t)snprintf(text, sizeof text, "%zu", total);
	while (total != body + strlen(text));
	char *grown = realloc(*buffer, *length + total);
	if (!grown)
		exit(1);
	*buffer = grown;
	char *at = grown + *length;
	at += sprintf(at, "%zu %s=", total, key);
	memcpy(at, value, size);
	at[size] = '\n';
	*length += total;
}

static void record_text(char **buffer, size_t *length, const char *key, const char *value)
{
	record(buffer, length, key, value, strlen(value));
}

static void record_number(char **buffer, size_t *length, const char *key, unsigned long long value)
{
	char text[32];
	snprintf(text, sizeof text, "%llu", value);
	record_text(buffer, length, key, text);
}

/* The extended attributes that matter in a container: a file's capabilities and the user's own. */
static void record_attributes(char **buffer, size_t *length, const char *path)
{
	static char names[ATTRIBUTES], value[ATTRIBUTES];
	ssize_t size = llistxattr(path, names, sizeof names);
	for (char *name = names; size > 0 && name < names + size; name += strlen(name) + 1) {
		char key[300];
		if (strcmp(name, "security.capability") != 0 && strncmp(name, "user.", 5) != 0)
			continue;
		ssize_t count = lgetxattr(path, name, value, sizeof value);
		if (count < 0 || strlen(name) > 255)
			continue;
		snprintf(key, sizeof key, XATTR_PREFIX "%s", name);
		record(buffer, length, key, value, (size_t)count);
	}
}

static void write_extended(const char *records, size_t length)
{
	struct header header = {.type = 'x', .magic = "ustar", .version = {'0', '0'}};
	strcpy(header.name, "././@PaxHeader");
	number(header.mode, sizeof header.mode, 0644);
	number(header.uid, sizeof header.uid, 0);
	number(header.gid, sizeof header.gid, 0);
	number(header.size, sizeof header.size, length);
	number(header.mtime, sizeof header.mtime, 0);
	checksum(&header);
	fwrite(&header, 1, sizeof header, stdout);
	fwrite(records, 1, length, stdout);
	pad(length);
}

static void write_header(const char *name, const char *path, const struct stat *info, char type, const char *target,
			 unsigned long long size)
{
	struct header header = {.type = type, .magic = "ustar", .version = {'0', '0'}};
	char *records = NULL;
	size_t length = 0;
	if (strlen(name) > sizeof header.name)
		record_text(&records, &length, "path", name);
	if (strlen(target) > sizeof header.link)
		record_text(&records, &length, "linkpath", target);
	if (size > 077777777777ull)
		record_number(&records, &length, "size", size);
	if (info->st_uid > 07777777)
		record_number(&records, &length, "uid", info->st_uid);
	if (info->st_gid > 07777777)
		record_number(&records, &length, "gid", info->st_gid);
	if (type != '1')
		record_attributes(&records, &length, path);
	if (length)
		write_extended(records, length);
	free(records);
	memcpy(header.name, name, strnlen(name, sizeof header.name));
	memcpy(header.link, target, strnlen(target, sizeof header.link));
	number(header.mode, sizeof header.mode, info->st_mode & 07777);
	number(header.uid, sizeof header.uid, info->st_uid & 07777777);
	number(header.gid, sizeof header.gid, info->st_gid & 07777777);
	number(header.size, sizeof header.size, size & 077777777777ull);
	number(header.mtime, sizeof header.mtime, info->st_mtime > 0 ? (unsigned long long)info->st_mtime & 077777777777ull : 0);
	number(header.major, sizeof header.major, major(info->st_rdev));
	number(header.minor, sizeof header.minor, minor(info->st_rdev));
	checksum(&header);
	fwrite(&header, 1, sizeof header, stdout);
}

/* Exactly `size` bytes, whatever happens to the file meanwhile. */
static void write_content(const char *path, unsigned long long size)
{
	static char buffer[65536];
	unsigned long long left = size;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	while (left) {
		ssize_t count = fd < 0 ? 0 : read(fd, buffer, left < sizeof buffer ? left : sizeof buffer);
		if (count <= 0) {
			count = left < sizeof buffer ? (ssize_t)left : (ssize_t)sizeof buffer;
			memset(buffer, 0, (size_t)count);
		}
		fwrite(buffer, 1, (size_t)count, stdout);
		left -= (unsigned long long)count;
	}
	if (fd >= 0)
		close(fd);
	pad(size);
}

/* The name under which an inode was written before; it is remembered when it is new. */
static const char *seen_before(const struct stat *info, const char *name)
{
	for (struct link *link = links; link; link = link->next)
		if (link->inode == info->st_ino && link->device == info->st_dev)
			return link->path;
	struct link *link = malloc(sizeof *link + strlen(name) + 1);
	if (!link)
		exit(1);
	link->device = info->st_dev;
	link->inode = info->st_ino;
	strcpy(link->path, name);
	link->next = links;
	links = link;
	return NULL;
}

static bool is_mount(const char *path)
{
	struct statx info;
	if (syscall(SYS_statx, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, 0, &info) < 0)
		return false;
	return info.stx_attributes & STATX_ATTR_MOUNT_ROOT;
}

static void pack(const char *path, const char *name);

static void pack_directory(const char *path, const char *name)
{
	char inner[PATH_SIZE], shown[PATH_SIZE];
	DIR *directory = opendir(path);
	struct dirent *entry;
	while (directory && (entry = readdir(directory))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		int length = snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
		snprintf(shown, sizeof shown, "%s%s%s", name, *name ? "/" : "", entry->d_name);
		if (length < (int)sizeof inner)
			pack(inner, shown);
	}
	if (directory)
		closedir(directory);
}

static void pack(const char *path, const char *name)
{
	struct stat info;
	char target[PATH_SIZE] = "", shown[PATH_SIZE];
	const char *first;
	if (lstat(path, &info) < 0)
		return;
	bool hollow = (skip_mounts || skip_places) && is_mount(path);
	if (hollow && skip_places)
		return;
	if (S_ISDIR(info.st_mode)) {
		snprintf(shown, sizeof shown, "%s/", name);
		if (*name)
			write_header(shown, path, &info, '5', "", 0);
		if (!hollow || !*name)
			pack_directory(path, name);
	} else if (info.st_nlink > 1 && !hollow && (first = seen_before(&info, name))) {
		write_header(name, path, &info, '1', first, 0);
	} else if (S_ISREG(info.st_mode)) {
		unsigned long long size = hollow ? 0 : (unsigned long long)info.st_size;
		write_header(name, path, &info, '0', "", size);
		write_content(path, size);
	} else if (S_ISLNK(info.st_mode)) {
		if (readlink(path, target, sizeof target - 1) >= 0)
			write_header(name, path, &info, '2', target, 0);
	} else if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
		write_header(name, path, &info, S_ISCHR(info.st_mode) ? '3' : '4', "", 0);
	} else if (S_ISFIFO(info.st_mode)) {
		write_header(name, path, &info, '6', "", 0);
	}
}

int archive_pack(char **args)
{
	struct stat info;
	char path[PATH_SIZE];
	static const char end[2 * BLOCK];
	if (!args[1] || lstat(args[1], &info) < 0) {
		fprintf(stderr, "%s: %s\n", args[1] ? args[1] : "pack", strerror(errno));
		return 2;
	}
	skip_mounts = args[2] && !strcmp(args[2], "whole");
	skip_places = args[2] && !strcmp(args[2], "own");
	snprintf(path, sizeof path, "%s", args[1]);
	const char *name = skip_mounts ? "" : basename(path);
	pack(args[1], !strcmp(name, "/") ? "." : name);
	fwrite(end, 1, sizeof end, stdout);
	return 0;
}
