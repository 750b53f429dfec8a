/* A template with its image keeps the main process's beginnings: a child that is already in the container's
 * namespaces and root, and waits to be told what it becomes. Forking and mounting are most of what the first
 * process costs a clone, whose kernel's code is translated anew. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

#define DESCRIPTORS 5

struct order {
	uint32_t length; /* of the process's fields, which follow */
	struct walls walls;
};

static int channel = -1;
static pid_t seed = -1;

static bool read_all(int fd, void *bytes, size_t length)
{
	for (uint8_t *at = bytes; length;) {
		ssize_t count = read(fd, at, length);
		if (count <= 0)
			return false;
		at += count;
		length -= (size_t)count;
	}
	return true;
}

/* The child: wait for the order and become the process. */
static void grow(int fd)
{
	char control[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
	struct order order;
	struct iovec data = {&order, sizeof order};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct spec spec;
	struct ends ends;
	launch_enter(-1);
	if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_WAITALL) != sizeof order || !CMSG_FIRSTHDR(&message))
		_exit(125);
	memcpy(&ends, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof ends);
	uint8_t *bytes = malloc(order.length);
	if (!bytes || !read_all(fd, bytes, order.length) || !spec_parse(&spec, bytes, order.length))
		_exit(125);
	close(fd);
	system_walls = order.walls;
	launch_main(&spec, &ends);
}

/* Make the child. Without one the main process is forked when it is asked for. */
void seed_plant(void)
{
	int pair[2];
	if (channel >= 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	seed = (pid_t)syscall(SYS_clone, SIGCHLD | CLONE_NEWPID | CLONE_NEWNS, 0, 0, 0, 0);
	if (seed == 0) {
		close(pair[0]);
		grow(pair[1]);
	}
	close(pair[1]);
	channel = pair[0];
}

/* Tell the child what to become; gives its pid, or -1 when there is none. */
pid_t seed_grow(const uint8_t *bytes, size_t length, const struct ends *ends)
{
	char control[CMSG_SPACE(DESCRIPTORS * sizeof(int))] = {0};
	struct order order = {.length = (uint32_t)length, .walls = system_walls};
	struct iovec data[] = {{&order, sizeof order}, {(void *)bytes, length}};
	struct msghdr message = {.msg_iov = data, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	_Static_assert(sizeof *ends == DESCRIPTORS * sizeof(int), "every descriptor is sent");
	if (channel < 0)
		return -1;
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof *ends);
	memcpy(CMSG_DATA(header), ends, sizeof *ends);
	/* The child reads while we write: a blocking socket takes all of it, or tells that the child is gone. */
	ssize_t sent = sendmsg(channel, &message, MSG_NOSIGNAL);
	close(channel);
	channel = -1;
	return sent == (ssize_t)(sizeof order + length) ? seed : -1;
}
