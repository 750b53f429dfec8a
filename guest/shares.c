/* Volumes and bind mounts: trees of the host, served in 9P2000.L through a port of their own.
 * The kernel's client speaks through pipes; a child of ours moves the bytes between them and the port. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

#define TREES "/run/shares"
#define MESSAGE_SIZE 262144
#define PIPE_SIZE (256 * 1024)
#define BUFFER 65536

/* linux/mount.h, which excludes sys/mount.h; glibc has them there too */
#ifndef MOUNT_ATTR_RDONLY
#define OPEN_TREE_CLONE 1
#define MOVE_MOUNT_F_EMPTY_PATH 4
#define MOVE_MOUNT_T_EMPTY_PATH 0x40
#define MOUNT_ATTR_RDONLY 1
#endif
#define RECURSIVE 0x8000
struct attributes {
	uint64_t set, clear, propagation, userns;
};

static int port = -1;
static bool connected;

/* Bytes on their way from one descriptor to another. */
struct way {
	int from, to;
	size_t start, length;
	uint8_t bytes[BUFFER];
};

void shares_boot(int fd)
{
	port = fd;
}

/* Read as much as there is room for; the port gives a page at a time. False at the end. */
static bool take(struct way *way)
{
	if (way->length)
		return true;
	way->start = 0;
	while (way->length < BUFFER) {
		ssize_t count = read(way->from, way->bytes + way->length, BUFFER - way->length);
		if (count < 0 && errno == EAGAIN)
			return true;
		if (count <= 0)
			return false;
		way->length += (size_t)count;
	}
	return true;
}

static bool give(struct way *way)
{
	while (way->length) {
		ssize_t count = write(way->to, way->bytes + way->start, way->length);
		if (count < 0 && errno == EAGAIN)
			return true;
		if (count <= 0)
			return false;
		way->start += (size_t)count;
		way->length -= (size_t)count;
	}
	return true;
}

/* Runs until the client or the host lets go. */
static void __attribute__((noreturn)) pump(int from_client, int to_client)
{
	static struct way out, in;
	out.from = from_client, out.to = port;
	in.from = port, in.to = to_client;
	for (;;) {
		struct pollfd set[] = {
			{.fd = port, .events = (in.length ? 0 : POLLIN) | (out.length ? POLLOUT : 0)},
			{.fd = out.length ? -1 : from_client, .events = POLLIN},
			{.fd = in.length ? to_client : -1, .events = POLLOUT},
		};
		if (poll(set, 3, -1) < 0 && errno != EINTR)
			_exit(1);
		if (!take(&in) || !give(&in) || !take(&out) || !give(&out))
			_exit(0);
	}
}

/* The child keeps its three descriptors alone, and is spared when memory is short: everything hangs on it. */
static void __attribute__((noreturn)) become_pump(int from_client, int to_client)
{
	write_file("/proc/self/oom_score_adj", "-1000");
	for (int fd = 0; fd < 1024; fd++)
		if (fd != port && fd != from_client && fd != to_client)
			close(fd);
	fcntl(from_client, F_SETFL, O_NONBLOCK);
	fcntl(to_client, F_SETFL, O_NONBLOCK);
	pump(from_client, to_client);
}

/* Mount the host's trees where the container does not see them. */
static int connect_shares(void)
{
	char options[200];
	int up[2], down[2];
	if (port < 0 || pipe2(up, O_CLOEXEC) < 0 || pipe2(down, O_CLOEXEC) < 0)
		return -1;
	fcntl(up[0], F_SETPIPE_SZ, PIPE_SIZE);
	fcntl(down[0], F_SETPIPE_SZ, PIPE_SIZE);
	pid_t pid = fork();
	if (pid == 0)
		become_pump(up[0], down[1]);
	close(up[0]);
	close(down[1]);
	close(port);
	port = -1;
	mkdir(TREES, 0700);
	/* Nothing is cached but what is mapped: changes are seen at once on both sides. */
	snprintf(options, sizeof options, "trans=fd,rfdno=%d,wfdno=%d,version=9p2000.L,msize=%d,access=client,cache=mmap",
		 down[0], up[1], MESSAGE_SIZE);
	int result = pid < 0 ? -1 : mount("shares", TREES, "9p", MS_NODEV, options);
	int error = errno;
	close(down[0]);
	close(up[1]);
	errno = error;
	connected = result == 0;
	return result;
}

/* The place for a file: it is made, empty, where the image has none. */
static int open_file_target(const char *target)
{
	char parent[4096];
	int fd = open_in_root(target, O_PATH, false);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	snprintf(parent, sizeof parent, "%s", target);
	char *slash = strrchr(parent, '/');
	if (!slash)
		return -1;
	*slash = 0;
	int made = open_in_root(*parent ? parent : "/", O_PATH | O_DIRECTORY, true);
	if (made < 0)
		return -1;
	close(made);
	made = open_in_root(target, O_CREAT | O_WRONLY, false);
	if (made < 0)
		return -1;
	close(made);
	return open_in_root(target, O_PATH, false);
}

static int place_tree(int tree, int target, bool readonly)
{
	struct attributes wanted = {.set = MOUNT_ATTR_RDONLY};
	if (readonly && syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &wanted, sizeof wanted) < 0)
		return -1;
	return (int)syscall(SYS_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

/* `number NUL target NUL options`: put a tree of the host's at its place in the container. */
int shares_mount(const struct field_value *value)
{
	char **words = field_list(value), path[64];
	struct stat info;
	int tree = -1, target = -1, result = -1;
	errno = EINVAL;
	if (!words[0] || !words[1] || !words[2] || (!connected && connect_shares() < 0))
		goto done;
	snprintf(path, sizeof path, TREES "/%.10s", words[0]);
	tree = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | O_CLOEXEC);
	if (tree < 0 || fstat(tree, &info) < 0)
		goto done;
	target = S_ISDIR(info.st_mode) ? open_in_root(words[1], O_PATH, true) : open_file_target(words[1]);
	if (target >= 0)
		result = place_tree(tree, target, !strcmp(words[2], "ro"));
done:;
	int error = errno;
	if (tree >= 0)
		close(tree);
	if (target >= 0)
		close(target);
	free(words);
	errno = error;
	return result;
}

/* What was written through mappings is on the host when this returns. */
void shares_flush(void)
{
	int fd = connected ? open(TREES, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd >= 0) {
		syncfs(fd);
		close(fd);
	}
}
