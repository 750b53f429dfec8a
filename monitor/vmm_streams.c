/* The streams of the main process: frames on the guest's stdio port, plain bytes on ours. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "protocol.h"
#include "vmm.h"

#define TAIL 4096
#define STDIN_PIECE 16384
#define NONCE 16
#define LOST_SERVER "the file server was killed\n"
#define LOST 255 /* exit code when the guest ended without telling its own */

static struct {
	const struct plan *plan;
	pid_t hypervisor, server;
	bool terminal;
	uint32_t credit;
	uint8_t in[2 * (FRAME_HEADER + FRAME_PAYLOAD)];
	size_t in_length;
	char tail[TAIL + 1]; /* the last that the console printed */
	size_t tail_length;
	int code;
	bool told, broken, synced;
	uint8_t marker[FRAME_HEADER + NONCE]; /* how the answer to our greeting begins */
} state;

static void write_all(int fd, const void *data, size_t length)
{
	const char *at = data;
	while (length) {
		ssize_t count = write(fd, at, length);
		if (count < 0 && errno == EAGAIN) {
			struct pollfd room = {.fd = fd, .events = POLLOUT};
			poll(&room, 1, -1);
			continue;
		}
		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			return;
		at += count;
		length -= count;
	}
}

static void send_frame(uint8_t type, const void *data, size_t length)
{
	static uint8_t message[FRAME_HEADER + STDIN_PIECE];
	struct frame frame = {.type = type, .length = length};
	memcpy(message, &frame, FRAME_HEADER);
	if (length)
		memcpy(message + FRAME_HEADER, data, length);
	write_all(state.plan->stdio, message, FRAME_HEADER + length);
}

static void send_size(void)
{
	struct winsize size;
	uint16_t body[2];
	if (ioctl(0, TIOCGWINSZ, &size) < 0 || !size.ws_row)
		return;
	body[0] = size.ws_row;
	body[1] = size.ws_col;
	send_frame(H_RESIZE, body, sizeof body);
}

/* conmon's file for it, which the engine watches for. */
static void note_oom(void)
{
	static bool noted;
	if (!noted)
		close(open("oom", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	noted = true;
}

static void on_frame(const struct frame *frame, const uint8_t *bytes)
{
	uint32_t number[2] = {0};
	memcpy(number, bytes, frame->length < 8 ? frame->length : 8);
	switch (frame->type) {
	case G_STDOUT: write_all(1, bytes, frame->length); break;
	case G_STDERR: write_all(2, bytes, frame->length); break;
	case G_WINDOW:
		if (number[0] <= WINDOW_STDIN - state.credit)
			state.credit += number[0];
		break;
	case G_EXIT:
		state.told = true;
		state.code = (int)(number[0] & 255);
		if (number[1])
			note_oom();
		break;
	case G_OOM: note_oom(); break;
	default: break;
	}
}

/* Greet the guest; zero bytes first end what another monitor left unfinished. */
static void greet(void)
{
	static const uint8_t padding[FRAME_HEADER + FRAME_PAYLOAD];
	struct frame answer = {.type = G_HELLO, .length = NONCE + 8};
	uint8_t nonce[NONCE];
	if (getrandom(nonce, sizeof nonce, 0) != sizeof nonce)
		fail("getrandom: %s", strerror(errno));
	memcpy(state.marker, &answer, FRAME_HEADER);
	memcpy(state.marker + FRAME_HEADER, nonce, NONCE);
	write_all(state.plan->stdio, padding, sizeof padding);
	send_frame(H_HELLO, nonce, NONCE);
}

/* Drop what comes before the answer to our greeting. */
static void synchronise(void)
{
	uint8_t *at = memmem(state.in, state.in_length, state.marker, sizeof state.marker);
	size_t dropped = state.in_length < sizeof state.marker ? 0 : state.in_length - sizeof state.marker + 1;
	if (at) {
		state.synced = true;
		dropped = at - state.in;
	}
	memmove(state.in, state.in + dropped, state.in_length - dropped);
	state.in_length -= dropped;
}

/* Take frames from the guest; what breaks the protocol ends the VM. */
static void on_stdio(void)
{
	ssize_t count = read(state.plan->stdio, state.in + state.in_length, sizeof state.in - state.in_length);
	if (count <= 0) {
		state.broken = count == 0 || (errno != EINTR && errno != EAGAIN);
		return;
	}
	state.in_length += count;
	size_t at = 0;
	if (!state.synced)
		synchronise();
	while (state.synced && !state.told && state.in_length - at >= FRAME_HEADER) {
		struct frame frame;
		memcpy(&frame, state.in + at, FRAME_HEADER);
		if (frame.length > FRAME_PAYLOAD) {
			snprintf(state.tail, sizeof state.tail, "the guest agent sent a frame that is too long");
			state.broken = true;
			return;
		}
		if (state.in_length - at < FRAME_HEADER + frame.length)
			break;
		on_frame(&frame, state.in + at + FRAME_HEADER);
		at += FRAME_HEADER + frame.length;
	}
	memmove(state.in, state.in + at, state.in_length - at);
	state.in_length -= at;
}

/* Hand stdin on; false when it has ended. */
static bool on_stdin(void)
{
	char bytes[STDIN_PIECE];
	size_t room = state.credit < sizeof bytes ? state.credit : sizeof bytes;
	ssize_t count = read(0, bytes, room);
	if (count < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	if (count <= 0 && state.plan->leash)
		state.broken = true;
	if (count <= 0) {
		send_frame(H_STDIN_EOF, NULL, 0);
		return false;
	}
	state.credit -= (uint32_t)count;
	send_frame(H_STDIN, bytes, count);
	return true;
}

/* Keep the last of what is printed. */
static void remember(const char *bytes, size_t count)
{
	if (state.tail_length + count > TAIL) {
		size_t kept = TAIL - count;
		memmove(state.tail, state.tail + state.tail_length - kept, kept);
		state.tail_length = kept;
	}
	memcpy(state.tail + state.tail_length, bytes, count);
	state.tail_length += count;
}

static void on_console(void)
{
	char bytes[TAIL / 2];
	ssize_t count = recv(state.plan->console, bytes, sizeof bytes, MSG_DONTWAIT);
	if (count > 0)
		remember(bytes, count);
}

/* Answers to the plan's commands: only a refusal is of interest. */
static void on_setup(void)
{
	char bytes[TAIL / 2 + 1];
	ssize_t count = recv(state.plan->setup, bytes, sizeof bytes - 1, MSG_DONTWAIT);
	if (count <= 0)
		return;
	bytes[count] = 0;
	char *error = strstr(bytes, "{\"error\"");
	if (error) {
		remember(error, strlen(error));
		state.broken = true;
	}
}

/* Send bytes and, if it is one, a descriptor. */
static void send_descriptor(int to, const char *bytes, size_t length, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec data = {(void *)bytes, length};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(int));
	if (fd < 0)
		message.msg_controllen = 0;
	sendmsg(to, &message, MSG_NOSIGNAL);
}

/* Send the plan's commands; QEMU takes them one after the other. */
static void send_commands(void)
{
	for (int i = 0; i < state.plan->command_count; i++) {
		const struct command *command = &state.plan->commands[i];
		send_descriptor(state.plan->setup, command->text, strlen(command->text), command->fd);
		write_all(state.plan->setup, "\n", 1);
		if (command->fd >= 0)
			close(command->fd);
	}
}

/* Somebody wants to speak to the agent: give them our end of its port. */
static void on_vendor(void)
{
	int fd = accept4(state.plan->vendor, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	send_descriptor(fd, "", 1, state.plan->agent);
	close(fd);
}

static void on_hypervisor(void)
{
	int status;
	if (state.hypervisor > 0 && hypervisor_ended(state.plan, state.hypervisor, &status)) {
		state.hypervisor = -1;
		state.code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : LOST;
		state.broken = true;
	}
}

static void on_signal(int fd)
{
	struct signalfd_siginfo info;
	if (read(fd, &info, sizeof info) != sizeof info)
		return;
	if (info.ssi_signo == SIGCHLD) {
		on_hypervisor();
		int status;
		/* A guest whose volumes fail is not let go on as if they were there. */
		if (state.server > 0 && waitpid(state.server, &status, WNOHANG) == state.server) {
			if (WIFSIGNALED(status))
				remember(LOST_SERVER, strlen(LOST_SERVER));
			state.server = -1;
			state.broken = true;
		}
	} else if (info.ssi_signo == SIGWINCH) {
		send_size();
	} else {
		uint32_t number = info.ssi_signo;
		send_frame(H_SIGNAL, &number, sizeof number);
	}
}

static int open_signals(void)
{
	sigset_t set;
	sigfillset(&set);
	sigdelset(&set, SIGSEGV);
	sigdelset(&set, SIGBUS);
	sigdelset(&set, SIGABRT);
	sigprocmask(SIG_SETMASK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The last line that was printed and is no mere warning of QEMU's. */
static char *last_line(void)
{
	for (;;) {
		char *end = state.tail + strlen(state.tail);
		while (end > state.tail && (end[-1] == '\n' || end[-1] == '\r'))
			*--end = 0;
		char *at = strrchr(state.tail, '\n');
		at = at ? at + 1 : state.tail;
		if (!strstr(at, ": warning: "))
			return at;
		*at = 0;
	}
}

/* Why the VM ended, in one line: the kernel's panic, else the last that was printed. */
static void explain(void)
{
	char line[512] = "";
	for (int i = 0; i < 64 && poll(&(struct pollfd){.fd = state.plan->console, .events = POLLIN}, 1, 0) > 0; i++)
		on_console();
	state.tail[state.tail_length < TAIL ? state.tail_length : TAIL] = 0;
	char *at = strstr(state.tail, "Kernel panic");
	if (!at)
		at = last_line();
	for (size_t i = 0; i < sizeof line - 1 && at[i] && at[i] != '\n' && at[i] != '\r'; i++)
		line[i] = at[i] < ' ' || at[i] > '~' ? '?' : at[i];
	const char *why = state.code > 128 && state.code < LOST ? strsignal(state.code - 128) : *line ? line : "no reason given";
	int file = open("fault", O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
	if (file >= 0) {
		dprintf(file, "%s\n", why);
		close(file);
	}
	dprintf(2, "bastide: the virtual machine ended before its process: %s\n", why);
}

static void loop(int signals)
{
	bool reading = true;
	while (!state.told && !state.broken) {
		struct pollfd set[] = {
			{.fd = state.plan->stdio, .events = POLLIN},
			{.fd = state.plan->console, .events = POLLIN},
			{.fd = state.plan->vendor, .events = POLLIN},
			{.fd = signals, .events = POLLIN},
			{.fd = reading && state.credit ? 0 : -1, .events = POLLIN},
			{.fd = state.plan->setup, .events = POLLIN},
			{.fd = state.plan->keeper, .events = POLLIN},
			{.fd = state.plan->keep, .events = POLLIN},
		};
		if (poll(set, 8, -1) < 0)
			continue;
		if (set[0].revents)
			on_stdio();
		if (set[1].revents & POLLIN)
			on_console();
		if (set[2].revents)
			on_vendor();
		if (set[3].revents)
			on_signal(signals);
		if (set[5].revents & POLLIN)
			on_setup();
		if (set[6].revents)
			on_hypervisor();
		if (set[7].revents && !state.in_length)
			keep_hand_over(state.plan, state.hypervisor, signals);
		if (set[4].revents && !state.told)
			reading = on_stdin();
	}
}

static bool is_tap(const struct plan *plan, int fd)
{
	for (int i = 0; i < plan->tap_count; i++)
		if (plan->taps[i] == fd)
			return true;
	return false;
}

/* Move streams until the process or QEMU has ended; gives the exit code. */
int streams_run(const struct plan *plan, pid_t hypervisor, pid_t server, bool terminal)
{
	int signals = open_signals();
	state.plan = plan;
	state.hypervisor = hypervisor;
	state.server = server;
	state.terminal = terminal;
	state.credit = WINDOW_STDIN;
	state.code = LOST;
	if (plan->keep < 0)
		close(plan->console_theirs);
	for (int i = 0; i < plan->grant_count; i++)
		if (plan->grants[i].ours != plan->console_theirs && !(plan->keep >= 0 && is_tap(plan, plan->grants[i].ours)))
			close(plan->grants[i].ours);
	for (int i = 0; plan->keeper >= 0 && i < plan->tap_count; i++)
		close(plan->taps[i]);
	state.synced = !plan->resync;
	send_commands();
	if (plan->resync)
		greet();
	if (terminal)
		send_size();
	loop(signals);
	if (state.hypervisor > 0) {
		/* The guest has flushed its disk before it told the exit: there is nothing to wait for. */
		int status = 0;
		bool ended = false;
		for (int i = 0; !state.told && i < 50 && !ended; i++)
			if (!(ended = hypervisor_ended(plan, state.hypervisor, &status)))
				usleep(2000);
		bool ours = !ended;
		if (ours)
			hypervisor_kill(plan, state.hypervisor, &status);
		if (!state.told && WIFSIGNALED(status) && !(ours && WTERMSIG(status) == SIGKILL))
			state.code = 128 + WTERMSIG(status);
	}
	shares_end(state.server);
	if (!state.told)
		explain();
	return state.code;
}
