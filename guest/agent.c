/* The guest agent: process 1 of every VM. It boots the little that is needed, then serves two
 * virtserialports: one carries the main process's streams, the other the host's requests.
 * It sleeps in epoll and never polls: a template is saved while it sleeps there. */
#define _GNU_SOURCE
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define IN_SIZE (FRAME_HEADER + 32768 + 4096)
#define OUT_CONGESTED (128 * 1024)
#define OUT_LIMIT (8u << 20)
#define WRITE_SIZE 32768

struct port agent_port, stdio_port;
static int epoll_fd = -1;
static uint32_t phase;

/* End the VM: the host sees QEMU exit and the reason on the console. */
void die(const char *what)
{
	fprintf(stderr, "bastide agent: %s: %s\n", what, strerror(errno));
	fflush(stderr);
	reboot(RB_AUTOBOOT);
	_exit(1);
}

void source_arm(struct source *source, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = source};
	if (source->fd < 0 || source->armed)
		return;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0)
		die("epoll_ctl");
	source->armed = true;
}

void source_disarm(struct source *source)
{
	if (source->armed)
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	source->armed = false;
}

void source_close(struct source *source)
{
	source_disarm(source);
	if (source->fd >= 0)
		close(source->fd);
	source->fd = -1;
}

/* Make room for `length` more bytes at the end of the output. */
static void port_grow(struct port *port, size_t length)
{
	if (port->out_start && port->out_start + port->out_length + length > port->out_size) {
		memmove(port->out, port->out + port->out_start, port->out_length);
		port->out_start = 0;
	}
	size_t needed = port->out_start + port->out_length + length;
	if (needed <= port->out_size)
		return;
	if (needed > OUT_LIMIT)
		die("the host does not read its answers");
	uint8_t *grown = realloc(port->out, needed * 2);
	if (!grown)
		die("out of memory");
	port->out = grown;
	port->out_size = needed * 2;
}

/* Write what the port takes now; the rest goes when it reports room. */
static void port_flush(struct port *port)
{
	while (port->out_length) {
		size_t size = port->out_length < WRITE_SIZE ? port->out_length : WRITE_SIZE;
		ssize_t written = write(port->source.fd, port->out + port->out_start, size);
		if (written <= 0)
			return;
		port->out_start += written;
		port->out_length -= written;
	}
	port->out_start = 0;
}

bool port_congested(const struct port *port)
{
	return port->out_length > OUT_CONGESTED;
}

/* Where the payload of the next frame may be written: FRAME_PAYLOAD bytes. */
uint8_t *port_reserve(struct port *port)
{
	port_grow(port, FRAME_HEADER + FRAME_PAYLOAD);
	return port->out + port->out_start + port->out_length + FRAME_HEADER;
}

/* Queue the frame whose payload was written to port_reserve's place; port_flush sends it. */
void port_commit(struct port *port, uint8_t type, uint32_t stream, size_t length)
{
	struct frame frame = {.type = type, .stream = stream, .length = length};
	memcpy(port->out + port->out_start + port->out_length, &frame, FRAME_HEADER);
	port->out_length += FRAME_HEADER + length;
}

/* Send bytes as one frame, or as several with FLAG_MORE. */
void port_send(struct port *port, uint8_t type, uint32_t stream, const void *data, size_t length)
{
	const uint8_t *at = data;
	do {
		size_t piece = length < FRAME_PAYLOAD ? length : FRAME_PAYLOAD;
		struct frame frame = {.type = type, .stream = stream, .length = piece};
		frame.flags = piece < length ? FLAG_MORE : 0;
		port_grow(port, FRAME_HEADER + piece);
		uint8_t *out = port->out + port->out_start + port->out_length;
		memcpy(out, &frame, FRAME_HEADER);
		if (piece)
			memcpy(out + FRAME_HEADER, at, piece);
		port->out_length += FRAME_HEADER + piece;
		at += piece;
		length -= piece;
	} while (length);
}

void reply_done(uint32_t request, const void *data, size_t length)
{
	port_send(&agent_port, G_DONE, request, data, length);
}

void reply_error(uint32_t request, uint32_t kind, const char *text)
{
	uint8_t message[1028];
	size_t length = strnlen(text, sizeof message - 4);
	memcpy(message, &kind, 4);
	memcpy(message + 4, text, length);
	port_send(&agent_port, G_ERROR, request, message, 4 + length);
}

/* A host takes this port up, perhaps after another one left amid a frame or this VM was restored. */
static void on_hello(struct port *port, const uint8_t *bytes, size_t length)
{
	uint8_t answer[24];
	uint32_t version = PROTOCOL_VERSION;
	if (length != 16)
		return;
	memcpy(answer, bytes, 16);
	memcpy(answer + 16, &version, 4);
	memcpy(answer + 20, &phase, 4);
	if (port == &agent_port) {
		process_detach();
		/* The one that held everything still is gone. */
		shares_release();
		system_freeze(false);
	}
	port_send(port, G_HELLO, 0, answer, sizeof answer);
}

/* `whole`: from now on this is a container; else some of what it is changes. */
static void on_configure(uint32_t request, uint8_t *bytes, size_t length, bool whole)
{
	char text[512];
	const char *error = system_configure((struct fields){bytes, bytes + length}, whole, text, sizeof text);
	if (error)
		reply_error(request, E_GUEST, error);
	else
		reply_done(request, NULL, 0);
	if (whole)
		phase = 1;
}

static void on_mount(uint32_t request)
{
	char text[512];
	const char *error = system_mount(text, sizeof text);
	if (!error)
		seed_plant();
	if (error)
		reply_error(request, E_GUEST, error);
	else
		reply_done(request, NULL, 0);
}

static void on_stats(uint32_t request)
{
	static char text[65536];
	reply_done(request, text, system_stats(text, sizeof text));
}

/* Hold everything still that the host keeps files of; answered when it is so. */
static void on_freeze(uint32_t request)
{
	if (system_freeze(true) < 0)
		reply_error(request, E_GUEST, strerror(errno));
	else
		shares_hold(request);
}

static void on_thaw(uint32_t request)
{
	shares_release();
	if (system_freeze(false) < 0)
		reply_error(request, E_GUEST, strerror(errno));
	else
		reply_done(request, NULL, 0);
}

static void on_resize(uint32_t stream, const uint8_t *bytes, size_t length)
{
	uint16_t size[2];
	if (length != sizeof size)
		return;
	memcpy(size, bytes, sizeof size);
	process_resize(stream, size[0], size[1]);
}

static uint32_t number(const uint8_t *bytes, size_t length)
{
	uint32_t value = 0;
	memcpy(&value, bytes, length < 4 ? length : 4);
	return value;
}

/* One whole message from the host. */
static void dispatch(struct port *port, uint8_t type, uint32_t stream, uint8_t *bytes, size_t length)
{
	fields_begin();
	switch (type) {
	case H_HELLO: on_hello(port, bytes, length); break;
	case H_CONFIGURE: on_configure(stream, bytes, length, true); break;
	case H_CLOCK:
	case H_FILES:
	case H_NETWORK: on_configure(stream, bytes, length, false); break;
	case H_MOUNT: on_mount(stream); break;
	case H_PREPARE: process_prepare(stream, bytes, length); break;
	case H_START: process_start(stream); break;
	case H_EXEC: process_exec(stream, bytes, length); break;
	case H_STDIN: process_input(stream, bytes, length); break;
	case H_STDIN_EOF: process_input_eof(stream); break;
	case H_WINDOW: process_window(stream, number(bytes, length)); break;
	case H_SIGNAL: process_signal(stream, (int)number(bytes, length)); break;
	case H_RESIZE: on_resize(stream, bytes, length); break;
	case H_STATS: on_stats(stream); break;
	case H_FREEZE: on_freeze(stream); break;
	case H_THAW: on_thaw(stream); break;
	case H_SHUTDOWN: process_shutdown(stream); break;
	default: reply_error(stream, E_INVALID, "the guest agent does not know this request"); break;
	}
}

/* Put the pieces of a long message together; dispatch it when it is whole. */
static void collect(struct port *port, const struct frame *frame, uint8_t *bytes)
{
	if (!(frame->flags & FLAG_MORE) && !port->message_length) {
		dispatch(port, frame->type, frame->stream, bytes, frame->length);
		return;
	}
	if (port->message_length + frame->length > MESSAGE_LIMIT) {
		port->message_length = 0;
		return;
	}
	port->message = realloc(port->message, port->message_length + frame->length + 1);
	if (!port->message)
		die("out of memory");
	memcpy(port->message + port->message_length, bytes, frame->length);
	port->message_length += frame->length;
	if (frame->flags & FLAG_MORE)
		return;
	dispatch(port, frame->type, frame->stream, port->message, port->message_length);
	free(port->message);
	port->message = NULL;
	port->message_length = 0;
}

/* Take whole frames off the input. Zero bytes between frames are padding. */
static void port_parse(struct port *port)
{
	size_t at = 0;
	while (at < port->in_length) {
		struct frame frame;
		if (port->in[at] == 0) {
			at++;
			continue;
		}
		if (port->in_length - at < FRAME_HEADER)
			break;
		memcpy(&frame, port->in + at, FRAME_HEADER);
		if (frame.length > FRAME_PAYLOAD)
			die("the host sent a frame that is too long");
		if (port->in_length - at < FRAME_HEADER + frame.length)
			break;
		if (frame.type == H_HELLO)
			port->message_length = 0;
		collect(port, &frame, port->in + at + FRAME_HEADER);
		at += FRAME_HEADER + frame.length;
	}
	memmove(port->in, port->in + at, port->in_length - at);
	port->in_length -= at;
}

/* Edge-triggered: read until there is no more, then write until it takes no more. */
static void on_port(struct source *source, uint32_t events)
{
	struct port *port = source->owner;
	(void)events;
	for (;;) {
		ssize_t count = read(source->fd, port->in + port->in_length, IN_SIZE - port->in_length);
		if (count <= 0)
			break;
		port->in_length += count;
		port_parse(port);
	}
	port_flush(port);
	process_unblock(port);
}

static void on_child(struct source *source, uint32_t events)
{
	struct signalfd_siginfo info;
	(void)events;
	while (read(source->fd, &info, sizeof info) == sizeof info)
		;
	process_reap();
}

/* The device of the port with this name, as the driver lists it: `vportBpN`, B being the bus's place among devices. */
static int open_port(const char *name)
{
	char path[320], found[64];
	struct dirent *entry;
	int fd = -1;
	DIR *ports = opendir("/sys/class/virtio-ports");
	while (ports && fd < 0 && (entry = readdir(ports))) {
		snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
		FILE *file = fopen(path, "re");
		if (!file)
			continue;
		bool same = fgets(found, sizeof found, file) && !strncmp(found, name, strlen(name)) &&
			    found[strlen(name)] == '\n';
		fclose(file);
		snprintf(path, sizeof path, "/dev/%s", entry->d_name);
		if (same)
			fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	}
	if (ports)
		closedir(ports);
	return fd;
}

static int await_port(const char *name)
{
	/* Ports appear a moment after their bus; only the boot of a template waits here. */
	int fd = -1;
	for (int tries = 0; fd < 0 && tries < 500; tries++) {
		fd = open_port(name);
		if (fd < 0)
			usleep(10000);
	}
	if (fd < 0)
		die(name);
	return fd;
}

static void port_open(struct port *port, const char *name)
{
	int fd = await_port(name);
	port->in = malloc(IN_SIZE);
	port->source = (struct source){.fd = fd, .ready = on_port, .owner = port};
	if (!port->in)
		die("out of memory");
	source_arm(&port->source, EPOLLIN | EPOLLOUT | EPOLLET);
}

int main(int argc, char **argv)
{
	static struct source child;
	sigset_t set;
	(void)argc;
	if (rehearsing(argv))
		return 0;
	system_boot();
	rehearse_boot();
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	child = (struct source){.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), .ready = on_child};
	source_arm(&child, EPOLLIN);
	port_open(&agent_port, PORT_AGENT);
	port_open(&stdio_port, PORT_STDIO);
	shares_boot(await_port(PORT_SHARES));
	system_watch_memory();
	for (;;) {
		struct epoll_event events[16];
		int count = epoll_wait(epoll_fd, events, 16, -1);
		for (int i = 0; i < count; i++) {
			struct source *source = events[i].data.ptr;
			if (source->fd >= 0)
				source->ready(source, events[i].events);
		}
		port_flush(&agent_port);
		port_flush(&stdio_port);
		process_collect();
	}
}
