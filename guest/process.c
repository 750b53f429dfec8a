/* Processes behind the wall and their streams. Output is read only as fast as the host takes it:
 * a stream stops at its window, every stream of a port stops while the port is congested. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "agent.h"

#define DETACHED_STREAM 0x80000000u
#define PIPE_SIZE (256 * 1024)

static struct process *processes, *dead;
static int leader_mounts = -1, leader_pids = -1; /* the main process's namespaces */
static bool stopping;

struct process *process_find(uint32_t stream)
{
	struct process *process = processes;
	while (process && process->stream != stream)
		process = process->next;
	return process;
}

static void send_u32(struct process *process, uint8_t type, uint32_t value)
{
	port_send(process->port, type, process->stream, &value, sizeof value);
}

static void send_exit(struct port *port, uint32_t stream, int code, bool oom)
{
	uint32_t body[2] = {(uint32_t)code, oom};
	port_send(port, G_EXIT, stream, body, sizeof body);
}

static void forget(struct process *process)
{
	struct process **link = &processes;
	while (*link != process)
		link = &(*link)->next;
	*link = process->next;
	source_close(&process->out);
	source_close(&process->err);
	source_close(&process->in);
	source_close(&process->status);
	if (process->go >= 0)
		close(process->go);
	free(process->input);
	process->input = NULL;
	process->next = dead;
	dead = process;
}

/* Free what ended during this round: events of the round may still name it. */
void process_collect(void)
{
	while (dead) {
		struct process *next = dead->next;
		free(dead);
		dead = next;
	}
}

/* The main process is gone: end the others, write everything to the disk, tell the host. */
static void finish_main(struct process *process)
{
	int code = process->code;
	bool oom = process->oom;
	forget(process);
	process_unblock(&agent_port);
	system_flush();
	send_exit(&agent_port, MAIN_STREAM, code, oom);
	send_exit(&stdio_port, MAIN_STREAM, code, oom);
}

static void finish(struct process *process)
{
	if (!process->exited || process->out.fd >= 0 || process->err.fd >= 0)
		return;
	if (process->stream == MAIN_STREAM) {
		finish_main(process);
		return;
	}
	if (!process->detached)
		send_exit(process->port, process->stream, process->code, process->oom);
	forget(process);
}

static bool may_send(const struct process *process)
{
	return process->detached || ((process->unlimited || process->window) && !port_congested(process->port));
}

/* Move output to the host until there is none, the window is used up or the port is congested. */
static void pump(struct process *process, struct source *source, uint8_t type)
{
	while (source->fd >= 0) {
		if (!may_send(process)) {
			source_disarm(source);
			return;
		}
		size_t room = FRAME_PAYLOAD;
		if (!process->unlimited && !process->detached && process->window < room)
			room = process->window;
		ssize_t count = read(source->fd, port_reserve(process->port), room);
		if (count > 0 && process->detached) {
			continue;
		} else if (count > 0) {
			port_commit(process->port, type, process->stream, count);
			if (!process->unlimited)
				process->window -= count;
		} else if (count < 0 && errno == EINTR) {
			continue;
		} else if (count < 0 && errno == EAGAIN && !process->exited) {
			source_arm(source, EPOLLIN);
			return;
		} else {
			source_close(source);
		}
	}
}

static void pump_all(struct process *process)
{
	pump(process, &process->out, G_STDOUT);
	pump(process, &process->err, G_STDERR);
	finish(process);
}

static void on_out(struct source *source, uint32_t events)
{
	(void)events;
	pump_all(source->owner);
}

/* A new host knows nothing of these: they go on, what they write is thrown away. */
void process_detach(void)
{
	struct process *next;
	for (struct process *process = processes; process; process = next) {
		next = process->next;
		if (process->stream == MAIN_STREAM)
			continue;
		process->detached = true;
		process->request = 0;
		/* Out of the way of the new host's numbers. */
		process->stream |= DETACHED_STREAM;
		pump_all(process);
	}
}

/* The port has room again, or a window opened. */
void process_unblock(struct port *port)
{
	struct process *next;
	for (struct process *process = processes; process; process = next) {
		next = process->next;
		if (process->port == port && (process->exited || !process->out.armed || !process->err.armed))
			pump_all(process);
	}
}

/* Write what is queued for stdin; tell the host how much room that made. */
static void feed(struct process *process)
{
	size_t done = 0;
	while (process->in.fd >= 0 && done < process->input_length) {
		ssize_t count = write(process->in.fd, process->input + done, process->input_length - done);
		if (count > 0) {
			done += count;
		} else if (errno == EAGAIN) {
			source_arm(&process->in, EPOLLOUT);
			break;
		} else if (errno != EINTR) {
			source_close(&process->in);
		}
	}
	if (process->in.fd < 0)
		done = process->input_length;
	memmove(process->input, process->input + done, process->input_length - done);
	process->input_length -= done;
	if (done && !process->detached)
		send_u32(process, G_WINDOW, (uint32_t)done);
	if (!process->input_length) {
		source_disarm(&process->in);
		if (process->input_eof && !process->terminal)
			source_close(&process->in);
	}
}

static void on_in(struct source *source, uint32_t events)
{
	(void)events;
	feed(source->owner);
}

void process_input(uint32_t stream, const uint8_t *bytes, size_t length)
{
	struct process *process = process_find(stream);
	if (!process)
		return;
	if (!process->input)
		process->input = malloc(WINDOW_STDIN);
	if (!process->input || length > WINDOW_STDIN - process->input_length)
		return;
	memcpy(process->input + process->input_length, bytes, length);
	process->input_length += length;
	if (!process->in.armed)
		feed(process);
}

void process_input_eof(uint32_t stream)
{
	struct process *process = process_find(stream);
	if (!process)
		return;
	process->input_eof = true;
	feed(process);
}

void process_window(uint32_t stream, uint32_t credit)
{
	struct process *process = process_find(stream);
	if (!process || process->unlimited)
		return;
	process->window += credit;
	pump_all(process);
}

void process_signal(uint32_t stream, int signal)
{
	struct process *process = process_find(stream);
	if (process && !process->exited && signal > 0 && signal < _NSIG)
		kill(process->pid, signal);
}

void process_resize(uint32_t stream, uint16_t rows, uint16_t columns)
{
	struct process *process = process_find(stream);
	struct winsize size = {.ws_row = rows, .ws_col = columns};
	if (process && process->terminal && process->out.fd >= 0)
		ioctl(process->out.fd, TIOCSWINSZ, &size);
}

/* The child's report: 'R' when the main process is prepared, an error, or the end: it runs. */
static void on_status(struct source *source, uint32_t events)
{
	struct process *process = source->owner;
	char text[1024];
	(void)events;
	ssize_t count = read(source->fd, text, sizeof text - 1);
	if (count < 0)
		return;
	if (count == 1 && text[0] == 'R') {
		process->prepared = true;
		reply_done(process->request, NULL, 0);
		process->request = 0;
		return;
	}
	source_close(source);
	if (count > 4 && process->request) {
		uint32_t kind;
		memcpy(&kind, text, 4);
		text[count] = 0;
		reply_error(process->request, kind, text + 4);
	} else if (count > 4 && process->stream == MAIN_STREAM) {
		port_send(process->port, G_STDERR, process->stream, text + 4, count - 4);
	} else if (process->request) {
		reply_done(process->request, NULL, 0);
	}
	process->request = 0;
}

static void on_ended(struct process *process, int status)
{
	if (process->status.fd >= 0)
		on_status(&process->status, 0);
	process->exited = true;
	process->code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	process->oom = system_oom_killed(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	source_close(&process->in);
	pump_all(process);
}

void process_reap(void)
{
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		struct process *process = processes;
		while (process && process->pid != pid)
			process = process->next;
		if (process && !process->exited)
			on_ended(process, status);
	}
}

static bool make_pipe(int ends[2], bool ours_reads)
{
	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	int ours = ours_reads ? ends[0] : ends[1];
	fcntl(ours, F_SETFL, O_NONBLOCK);
	if (ours_reads)
		fcntl(ours, F_SETPIPE_SZ, PIPE_SIZE);
	return true;
}

/* A terminal of the container's own devpts: our side of it. */
bool process_terminal(struct process *process, const struct spec *spec)
{
	int master = open(ROOT "/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	int unlock = 0;
	struct winsize size = {.ws_row = spec->rows, .ws_col = spec->columns};
	if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0)
		return false;
	if (spec->rows)
		ioctl(master, TIOCSWINSZ, &size);
	process->out.fd = master;
	process->in.fd = fcntl(master, F_DUPFD_CLOEXEC, 3);
	return true;
}

static bool make_terminal(struct process *process, const struct spec *spec, struct ends *ends)
{
	if (!process_terminal(process, spec))
		return false;
	int slave = ioctl(process->out.fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	ends->in = ends->out = ends->err = slave;
	return slave >= 0;
}

/* Pipes for its output, and for its input or nothing. */
bool process_pipes(struct process *process, bool stdin_open, struct ends *ends)
{
	int pair[2];
	if (!make_pipe(pair, true))
		return false;
	process->out.fd = pair[0];
	ends->out = pair[1];
	if (!make_pipe(pair, true))
		return false;
	process->err.fd = pair[0];
	ends->err = pair[1];
	if (!stdin_open) {
		ends->in = open("/dev/null", O_RDONLY | O_CLOEXEC);
		return ends->in >= 0;
	}
	if (!make_pipe(pair, false))
		return false;
	process->in.fd = pair[1];
	ends->in = pair[0];
	return true;
}

/* What tells us of the child, and lets the main process run. */
bool process_reins(struct process *process, bool leader, struct ends *ends)
{
	int status[2], go[2];
	if (pipe2(status, O_CLOEXEC) < 0)
		return false;
	process->status.fd = status[0];
	ends->status = status[1];
	if (!leader)
		return true;
	if (pipe2(go, O_CLOEXEC) < 0)
		return false;
	process->go = go[1];
	ends->go = go[0];
	return true;
}

void ends_close(const struct ends *ends)
{
	if (ends->in >= 0)
		close(ends->in);
	if (ends->out >= 0 && ends->out != ends->in)
		close(ends->out);
	if (ends->err >= 0 && ends->err != ends->out)
		close(ends->err);
	if (ends->status >= 0)
		close(ends->status);
	if (ends->go >= 0)
		close(ends->go);
}

/* Open a namespace of the main process for those that follow. */
static int open_namespace(pid_t pid, const char *name)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* The main process's child, in namespaces of its own; they are held, so that its end need not wait for theirs. */
pid_t process_fork(void)
{
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD | CLONE_NEWPID | CLONE_NEWNS, 0, 0, 0, 0);
	if (pid > 0) {
		leader_mounts = open_namespace(pid, "mnt");
		leader_pids = open_namespace(pid, "pid");
	}
	return pid;
}

/* Whether the main process runs: what is executed now enters its namespaces. */
static bool started(void)
{
	const struct process *leader = process_find(MAIN_STREAM);
	return leader && leader->prepared && leader->go < 0;
}

/* A child of the agent that joins the container, if there is one yet. */
static pid_t fork_beside(void)
{
	/* Once: from then on every fork of the agent lands in the container's process namespace. */
	if (container_mounts < 0 && started()) {
		if (setns(leader_pids, CLONE_NEWPID) < 0)
			return -1;
		container_mounts = leader_mounts;
	}
	return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

/* Begin the child with its streams; `bytes` are what `spec` was read from. */
static bool spawn(struct process *process, const struct spec *spec, uint8_t *bytes, size_t length)
{
	struct ends ends = {-1, -1, -1, -1, -1};
	bool leader = process->stream == MAIN_STREAM;
	if (leader && seed_grow(process, spec, bytes, length))
		return true;
	bool ready = (spec->terminal ? make_terminal(process, spec, &ends) : process_pipes(process, spec->stdin_open, &ends)) &&
		     process_reins(process, leader, &ends);
	process->pid = !ready ? -1 : leader ? process_fork() : fork_beside();
	if (process->pid == 0 && leader) {
		launch_enter(ends.status);
		launch_main(spec, &ends);
	} else if (process->pid == 0) {
		launch_exec(spec, &ends);
	}
	int error = errno;
	ends_close(&ends);
	errno = error;
	return process->pid > 0;
}

static struct process *process_new(uint32_t stream, uint32_t request, struct port *port)
{
	struct process *process = calloc(1, sizeof *process);
	if (!process)
		die("out of memory");
	process->stream = stream;
	process->request = request;
	process->port = port;
	process->pid = -1;
	process->go = -1;
	process->out = (struct source){.fd = -1, .ready = on_out, .owner = process};
	process->err = (struct source){.fd = -1, .ready = on_out, .owner = process};
	process->in = (struct source){.fd = -1, .ready = on_in, .owner = process};
	process->status = (struct source){.fd = -1, .ready = on_status, .owner = process};
	process->next = processes;
	processes = process;
	return process;
}

static void run(struct process *process, uint8_t *bytes, size_t length)
{
	struct spec spec;
	uint32_t request = process->request;
	if (!spec_parse(&spec, bytes, length)) {
		forget(process);
		reply_error(request, E_INVALID, "the process has no command");
	} else if (!spawn(process, &spec, bytes, length)) {
		char text[128];
		snprintf(text, sizeof text, "fork in the guest: %s", strerror(errno));
		forget(process);
		reply_error(request, E_GUEST, text);
	} else {
		process->terminal = spec.terminal;
		source_arm(&process->status, EPOLLIN);
		source_arm(&process->out, EPOLLIN);
		source_arm(&process->err, EPOLLIN);
	}
}

void process_prepare(uint32_t request, uint8_t *bytes, size_t length)
{
	if (process_find(MAIN_STREAM)) {
		reply_error(request, E_CONFLICT, "the main process exists already");
		return;
	}
	struct process *process = process_new(MAIN_STREAM, request, &stdio_port);
	process->unlimited = true;
	run(process, bytes, length);
}

void process_start(uint32_t request)
{
	struct process *process = process_find(MAIN_STREAM);
	if (!process || !process->prepared || process->go < 0) {
		reply_error(request, E_CONFLICT, "no process waits to be started");
		return;
	}
	process->request = request;
	if (write(process->go, "", 1) != 1)
		reply_error(request, E_GUEST, "the waiting process is gone");
	close(process->go);
	process->go = -1;
}

void process_exec(uint32_t stream, uint8_t *bytes, size_t length)
{
	if (process_find(stream) || stopping) {
		reply_error(stream, E_CONFLICT, "the stream is in use or the VM is stopping");
		return;
	}
	struct process *process = process_new(stream, stream, &agent_port);
	process->window = WINDOW_OUTPUT;
	run(process, bytes, length);
}

void process_shutdown(uint32_t request)
{
	struct process *process = process_find(MAIN_STREAM);
	stopping = true;
	if (process)
		kill(process->pid, SIGKILL);
	else
		system_flush();
	reply_done(request, NULL, 0);
}
