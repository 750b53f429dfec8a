/* Functions of the agent that run in a child inside the container's root, where images have no programs
 * of their own to rely on. Output goes to stdout, a line of error to stderr, the result is the exit code:
 * 0, 1 failed, 2 no such file. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "agent.h"

#define PATH_SIZE 8192

static int complain(const char *path)
{
	int code = errno == ENOENT || errno == ENOTDIR ? 2 : 1;
	fprintf(stderr, "%s: %s\n", path, strerror(errno));
	return code;
}

/* stat PATH: numbers mode size seconds nanoseconds uid gid, then NUL, then the target of a link. */
static int run_stat(char **args)
{
	struct stat info;
	char target[PATH_SIZE] = "";
	if (!args[1] || lstat(args[1], &info) < 0)
		return complain(args[1] ? args[1] : "stat");
	if (S_ISLNK(info.st_mode) && readlink(args[1], target, sizeof target - 1) < 0)
		return complain(args[1]);
	printf("%u %lld %lld %ld %u %u", info.st_mode, (long long)info.st_size, (long long)info.st_mtim.tv_sec,
	       info.st_mtim.tv_nsec, info.st_uid, info.st_gid);
	putchar(0);
	fputs(target, stdout);
	return 0;
}

static void change(char kind, const char *path)
{
	putchar(kind);
	putchar('/');
	fputs(path, stdout);
	putchar(0);
}

static bool is_opaque(int directory)
{
	char value[4];
	return fgetxattr(directory, "trusted.overlay.opaque", value, sizeof value) == 1 && value[0] == 'y';
}

/* What an opaque directory hides: the image's entries that it does not have itself. */
static void hidden(int upper, const char *path)
{
	char full[PATH_SIZE];
	int below = openat(system_base, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *directory = below < 0 ? NULL : fdopendir(below);
	struct dirent *entry;
	struct stat info;
	while (directory && (entry = readdir(directory))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (fstatat(upper, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0)
			continue;
		if (snprintf(full, sizeof full, "%s/%s", path, entry->d_name) < (int)sizeof full)
			change('D', full);
	}
	if (directory)
		closedir(directory);
}

static void walk(int parent, const char *name, const char *path)
{
	struct stat info, old;
	char below[PATH_SIZE];
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	if (!directory)
		return;
	if (*path && is_opaque(fd))
		hidden(fd, path);
	while ((entry = readdir(directory))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		int length = snprintf(below, sizeof below, "%s%s%s", path, *path ? "/" : "", entry->d_name);
		if (length >= (int)sizeof below || fstatat(fd, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (S_ISCHR(info.st_mode) && info.st_rdev == 0) {
			change('D', below);
			continue;
		}
		change(fstatat(system_base, below, &old, AT_SYMLINK_NOFOLLOW) == 0 ? 'C' : 'A', below);
		if (S_ISDIR(info.st_mode))
			walk(fd, entry->d_name, below);
	}
	closedir(directory);
}

/* changes: what the writable disk holds over the image; `C`, `A` or `D` and the path, each ended by NUL. */
static int run_changes(char **args)
{
	(void)args;
	if (system_upper < 0)
		return 0;
	walk(system_upper, ".", "");
	return 0;
}

/* Copy a file of /proc to stdout, its NULs as spaces; a NUL after it. */
static void print_file(const char *directory, const char *name)
{
	char path[300], buffer[4096];
	snprintf(path, sizeof path, "/proc/%s/%s", directory, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t count = fd < 0 ? 0 : read(fd, buffer, sizeof buffer);
	while (count > 0 && (!buffer[count - 1] || buffer[count - 1] == '\n'))
		count--;
	for (ssize_t i = 0; i < count; i++)
		putchar(buffer[i] ? buffer[i] : ' ');
	putchar(0);
	if (fd >= 0)
		close(fd);
}

/* processes: /proc/uptime, then of each process its uid, its stat and its command line; each ended by NUL. */
static int run_processes(char **args)
{
	DIR *directory = opendir("/proc");
	struct dirent *entry;
	struct stat info;
	char path[300];
	print_file(".", "uptime");
	while (directory && (entry = readdir(directory))) {
		if (entry->d_name[0] < '0' || entry->d_name[0] > '9' || atoi(entry->d_name) == getpid())
			continue;
		snprintf(path, sizeof path, "/proc/%s", entry->d_name);
		if (stat(path, &info) < 0)
			continue;
		printf("%u", info.st_uid);
		putchar(0);
		print_file(entry->d_name, "stat");
		print_file(entry->d_name, "cmdline");
	}
	(void)args;
	return directory ? 0 : complain("/proc");
}

static const struct {
	const char *name;
	int (*run)(char **args);
} functions[] = {
	{"stat", run_stat},
	{"changes", run_changes},
	{"processes", run_processes},
	{"pack", archive_pack},
	{"unpack", archive_unpack},
	{"warm", warm},
	{"rehearse", rehearse},
	{NULL, NULL},
};

int builtin_run(char **args)
{
	static char buffer[65536];
	setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
	for (size_t i = 0; functions[i].name; i++)
		if (!strcmp(args[0], functions[i].name)) {
			int code = functions[i].run(args);
			return fflush(stdout) == 0 ? code : 1;
		}
	fprintf(stderr, "%s: the guest agent has no such function\n", args[0]);
	return 2;
}
