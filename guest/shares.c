/* Volumes and bind mounts: trees of the host, served in 9P2000.L through a port of their own.
 * The kernel's client speaks through pipes; a child of ours moves the bytes between them and the port. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/socket.h>
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

/* A message of ours, which the client's never collide with: the server writes down what it holds. */
#define SAVE "\x07\0\0\0\xfa\xff\xff"
#define SAVE_SIZE 7

static int port = -1;
static int from_host = -1, to_host = -1; /* the pipes' ends for the kernel's client */
static bool connected;
static uint32_t request; /* who waits until everything is still */

/* Bytes on their way from one descriptor to another, and where in a message of 9P they are. */
struct way {
	int from, to;
	size_t start, length;
	uint32_t left; /* bytes of the message that have yet to come */
	size_t header; /* how many of its length's four are known */
	uint8_t size[4];
	uint64_t messages; /* that were seen whole */
	uint8_t bytes[BUFFER];
};

/* HOLD: no new requests; when those under way are answered the server writes down what it holds (SAVING); HELD until
 * FREE, which waits for that answer too. */
enum order { NONE, HOLD, SAVING, HELD, FREE };

static void follow(struct way *way, const uint8_t *bytes, size_t length)
{
	while (length) {
		size_t part = way->left;
		if (!part) {
			part = sizeof way->size - way->header;
			part = part < length ? part : length;
			memcpy(way->size + way->header, bytes, part);
			way->header += part;
			if (way->header == sizeof way->size) {
				memcpy(&way->left, way->size, sizeof way->left);
				way->left -= sizeof way->size;
				way->header = 0;
			}
		} else {
			part = part < length ? part : length;
			way->left -= (uint32_t)part;
			way->messages += !way->left;
		}
		bytes += part;
		length -= part;
	}
}

static bool between_messages(const struct way *way)
{
	return !way->length && !way->left && !way->header;
}

/* Read as much as there is room for; the port gives a page at a time. `whole`: not past the message that has begun.
 * False at the end. */
static bool take(struct way *way, bool whole)
{
	if (way->length)
		return true;
	way->start = 0;
	while (way->length < BUFFER) {
		size_t room = BUFFER - way->length;
		if (whole) {
			size_t rest = way->left ? way->left : way->header ? sizeof way->size - way->header : 0;
			room = rest < room ? rest : room;
		}
		if (!room)
			return true;
		ssize_t count = read(way->from, way->bytes + way->length, room);
		if (count < 0 && errno == EAGAIN)
			return true;
		if (count <= 0)
			return false;
		follow(way, way->bytes + way->length, (size_t)count);
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

static bool quiet(const struct way *out, const struct way *in)
{
	return between_messages(out) && between_messages(in) && out->messages == in->messages;
}

/* One step towards stillness, or out of it; `control` is told when it is reached. */
static enum order settle(enum order order, struct way *out, struct way *in, int control)
{
	if (order == HOLD && quiet(out, in))
		return write(port, SAVE, SAVE_SIZE) == SAVE_SIZE ? SAVING : HOLD;
	if ((order == SAVING || order == FREE) && in->messages > out->messages) {
		/* The answer is nothing that the client asked for. */
		in->messages = out->messages;
		in->length = 0;
		return order == SAVING && write(control, "", 1) == 1 ? HELD : NONE;
	}
	return order;
}

static enum order obey(enum order order, enum order wanted)
{
	bool saving = order == SAVING || order == FREE;
	if (wanted == FREE)
		return saving ? FREE : NONE;
	return saving ? SAVING : HOLD;
}

/* Runs until the client or the host lets go. */
static void __attribute__((noreturn)) pump(int from_client, int to_client, int control)
{
	static struct way out, in;
	enum order order = NONE;
	out.from = from_client, out.to = port;
	in.from = port, in.to = to_client;
	for (;;) {
		bool still = order != NONE && between_messages(&out), full = out.length || (order == HOLD && quiet(&out, &in));
		struct pollfd set[] = {
			{.fd = port, .events = (in.length ? 0 : POLLIN) | (full ? POLLOUT : 0)},
			{.fd = out.length || still ? -1 : from_client, .events = POLLIN},
			{.fd = in.length ? to_client : -1, .events = POLLOUT},
			{.fd = control, .events = POLLIN},
		};
		uint8_t wanted;
		if (poll(set, 4, -1) < 0 && errno != EINTR)
			_exit(1);
		while (read(control, &wanted, 1) == 1)
			order = obey(order, wanted);
		bool ours = order == SAVING || order == FREE;
		if (!take(&in, false) || (!ours && !give(&in)) || !take(&out, order != NONE) || !give(&out))
			_exit(0);
		order = settle(order, &out, &in, control);
	}
}

/* The child keeps its four descriptors alone, and is spared when memory is short: everything hangs on it. */
static void __attribute__((noreturn)) become_pump(int from_client, int to_client, int control)
{
	write_file("/proc/self/oom_score_adj", "-1000");
	system_leave_limits();
	for (int fd = 0; fd < 1024; fd++)
		if (fd != port && fd != from_client && fd != to_client && fd != control)
			close(fd);
	fcntl(from_client, F_SETFL, O_NONBLOCK);
	fcntl(to_client, F_SETFL, O_NONBLOCK);
	pump(from_client, to_client, control);
}

/* The pump is still, or gone. */
static void on_control(struct source *source, uint32_t events)
{
	uint8_t byte;
	(void)events;
	ssize_t count = read(source->fd, &byte, 1);
	if (count == 0)
		source_close(source);
	if (request && count == 1)
		reply_done(request, NULL, 0);
	else if (request && count == 0)
		reply_error(request, E_GUEST, "the volumes are gone");
	request = count >= 0 ? 0 : request;
}

static struct source control = {.fd = -1, .ready = on_control};

/* Answer the request when no message is under way and the server has written down what the client holds. */
void shares_hold(uint32_t number)
{
	uint8_t order = HOLD;
	request = number;
	if (!connected || control.fd < 0 || write(control.fd, &order, 1) != 1) {
		request = 0;
		reply_done(number, NULL, 0);
	}
}

void shares_release(void)
{
	uint8_t order = FREE;
	request = 0;
	if (connected && control.fd >= 0 && write(control.fd, &order, 1) != 1)
		source_close(&control);
}

/* Start the pump while the template boots, before anything has limits; it sleeps until there are volumes. */
void shares_boot(int fd)
{
	int up[2], down[2], pair[2];
	port = fd;
	if (pipe2(up, O_CLOEXEC) < 0 || pipe2(down, O_CLOEXEC) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		die("pipes for volumes");
	fcntl(up[0], F_SETPIPE_SZ, PIPE_SIZE);
	fcntl(down[0], F_SETPIPE_SZ, PIPE_SIZE);
	pid_t pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0)
		become_pump(up[0], down[1], pair[1]);
	close(up[0]);
	close(down[1]);
	close(pair[1]);
	close(port);
	from_host = down[0];
	to_host = up[1];
	control.fd = pair[0];
	source_arm(&control, EPOLLIN);
}

/* Mount the host's trees where the container does not see them. */
static int connect_shares(void)
{
	char options[200];
	mkdir(TREES, 0700);
	/* Nothing is cached but what is mapped: changes are seen at once on both sides. */
	snprintf(options, sizeof options, "trans=fd,rfdno=%d,wfdno=%d,version=9p2000.L,msize=%d,access=client,cache=mmap",
		 from_host, to_host, MESSAGE_SIZE);
	int result = mount("shares", TREES, "9p", MS_NODEV, options);
	int error = errno;
	close(from_host);
	close(to_host);
	from_host = to_host = -1;
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
