/* A template with its image keeps the main process's beginnings: a child that is already in the container's
 * namespaces, session and root, has its streams and waits to be told what it becomes. Making these is most of what
 * the first process costs a clone, whose kernel's code is translated anew. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent.h"

struct order {
	struct walls walls;
	int terminal; /* the number of its terminal, where it has one */
	size_t length;
	uint8_t bytes[MESSAGE_LIMIT]; /* the process's fields */
};

static struct order *order; /* shared with the child */
static struct process kept; /* the child, and our ends of its streams */

/* The child: wait for the order and become the process. */
static void grow(struct ends *ends)
{
	struct spec spec;
	char told, path[32];
	launch_enter(ends->status);
	if (read(ends->go, &told, 1) != 1 || !spec_parse(&spec, order->bytes, order->length))
		_exit(125);
	snprintf(path, sizeof path, "/dev/pts/%d", order->terminal);
	if (spec.terminal)
		ends->in = ends->out = ends->err = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	else if (!spec.stdin_open)
		ends->in = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (ends->in < 0)
		launch_fail(ends->status, E_GUEST, "cannot open its streams: %s", strerror(errno));
	system_walls = order->walls;
	launch_main(&spec, ends);
}

/* Make the child. */
void seed_plant(void)
{
	struct ends ends;
	if (order)
		return;
	order = mmap(NULL, sizeof *order, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (order == MAP_FAILED || !process_pipes(&kept, true, &ends) || !process_reins(&kept, true, &ends))
		die("a process cannot be prepared");
	kept.pid = process_fork();
	if (kept.pid < 0)
		die("a process cannot be prepared");
	if (kept.pid == 0)
		grow(&ends);
	ends_close(&ends);
}

/* Have the child become the process; false when there is none. */
bool seed_grow(struct process *process, const struct spec *spec, uint8_t *bytes, size_t length)
{
	if (!kept.pid || length > sizeof order->bytes)
		return false;
	process->pid = kept.pid;
	process->status.fd = kept.status.fd;
	process->go = kept.go;
	kept.pid = 0;
	if (!spec->terminal) {
		process->out.fd = kept.out.fd;
		process->err.fd = kept.err.fd;
	} else if (!process_terminal(process, spec) || ioctl(process->out.fd, TIOCGPTN, &order->terminal) < 0) {
		return false;
	}
	if (!spec->terminal && spec->stdin_open)
		process->in.fd = kept.in.fd;
	order->walls = system_walls;
	order->length = length;
	memcpy(order->bytes, bytes, length);
	return write(process->go, "", 1) == 1;
}
