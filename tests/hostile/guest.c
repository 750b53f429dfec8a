/* A guest agent that turns on its host: the real one, in which `exec NAME attack KIND` begins an attack.
 * Linked with --wrap, so that nothing of the real agent is copied. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "agent.h"

#define PIECE FRAME_PAYLOAD
#define REGULAR '0'
#define SYMLINK '2'

void __real_process_exec(uint32_t stream, uint8_t *bytes, size_t length);
size_t __real_system_stats(char *text, size_t size);
void __real_shares_boot(int port);

static char kind[32];
static uint8_t piece[PIECE];
static int shares_port;

static bool is(const char *name)
{
	return !strcmp(kind, name);
}

/* Write all of it, however long the host lets us wait. */
static void put(int fd, const void *bytes, size_t length)
{
	const uint8_t *at = bytes;
	while (length) {
		ssize_t count = write(fd, at, length);
		if (count > 0) {
			at += count;
			length -= (size_t)count;
		} else if (poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, 1000) < 0 && errno != EINTR) {
			return;
		}
	}
}

/* A frame that claims `length` bytes and has `present`. */
static void tell(struct port *port, uint8_t type, uint8_t flags, uint32_t stream, uint32_t length, size_t present)
{
	struct frame frame = {.type = type, .flags = flags, .stream = stream, .length = length};
	put(port->source.fd, &frame, FRAME_HEADER);
	put(port->source.fd, piece, present);
}

static void noise(int fd, int count)
{
	int random = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	for (int i = 0; i < count && read(random, piece, sizeof piece) > 0; i++)
		put(fd, piece, sizeof piece);
	close(random);
}

/* Frames of every kind for streams that exist and for others, of every length, right and wrong. */
static void chatter(struct port *port, uint32_t stream)
{
	for (uint32_t i = 0; i < 200000; i++)
		tell(port, (uint8_t)(30 + i % 16), (uint8_t)(i % 7 == 0), stream - 8 + i % 16, i % 13, i % 13);
}

static void escapes(void)
{
	static const char text[] = "Kernel panic \033[2J\033]0;owned\007\033[31mred \x9b\xff not a line\n";
	int fd = open("/dev/console", O_WRONLY | O_CLOEXEC);
	for (int i = 0; i < 2000; i++)
		put(fd, text, sizeof text - 1);
	reboot(RB_AUTOBOOT);
}

static void attack(uint32_t stream)
{
	struct port *port = &agent_port;
	if (is("huge"))
		tell(port, G_STDOUT, 0, stream, 0xfffffff0, PIECE);
	for (; is("endless");)
		tell(port, G_DONE, FLAG_MORE, stream, PIECE, PIECE);
	for (; is("silence");)
		pause();
	if (is("noise"))
		noise(port->source.fd, 256);
	if (is("chatter"))
		chatter(port, stream);
	if (is("console"))
		escapes();
	if (is("stdio-huge"))
		tell(&stdio_port, G_STDOUT, 0, 0, 0xfffffff0, PIECE);
	if (is("stdio-noise"))
		noise(stdio_port.source.fd, 256);
	if (is("stdio-chatter"))
		chatter(&stdio_port, 8);
	for (int i = 0; is("stdio-flood") && i < 2000; i++)
		tell(&stdio_port, G_STDOUT, 0, 0, PIECE, PIECE);
	if (is("shares"))
		noise(shares_port, 64);
	tell(port, G_DONE, 0, stream, 0, 0);
	for (; is("flood");)
		tell(port, G_STDOUT, 0, stream, PIECE, PIECE);
	for (; is("half");)
		tell(port, G_STDOUT, 0, stream, PIECE, 100), pause();
	if (is("short"))
		tell(port, G_EXIT, 0, stream, 1, 1);
	uint32_t end[2] = {0, 0};
	memcpy(piece, end, sizeof end);
	tell(port, G_EXIT, 0, stream, sizeof end, sizeof end);
}

/* An entry of a tar archive (POSIX ustar) with one block of content, or none. */
static void entry(uint32_t stream, const char *name, char type, const char *target)
{
	unsigned sum = 0;
	char *block = (char *)piece;
	size_t size = type == REGULAR ? 512 : 0;
	memset(piece, 0, 1024);
	snprintf(block, 100, "%s", name);
	sprintf(block + 100, "0000644");
	sprintf(block + 108, "0000000");
	sprintf(block + 116, "0000000");
	sprintf(block + 124, "%011zo", size);
	sprintf(block + 136, "00000000000");
	block[156] = type;
	snprintf(block + 157, 100, "%s", target);
	memcpy(block + 257, "ustar\00000", 8);
	memset(block + 148, ' ', 8);
	for (int i = 0; i < 512; i++)
		sum += piece[i];
	sprintf(block + 148, "%06o", sum);
	memset(block + 512, 'x', size);
	tell(&agent_port, G_STDOUT, 0, stream, 512 + size, 512 + size);
}

/* What the agent's own functions answer from now on. */
static void lie(uint32_t stream, char **args)
{
	tell(&agent_port, G_DONE, 0, stream, 0, 0);
	if (!strcmp(args[0], "stat") && is("climb")) {
		size_t length = (size_t)sprintf((char *)piece, "%u 0 0 0 0 0", 040755) + 1;
		tell(&agent_port, G_STDOUT, 0, stream, length, length);
	} else if (is("climb") || is("link")) {
		if (is("link"))
			entry(stream, "data/way", SYMLINK, "/tmp");
		entry(stream, is("link") ? "data/way/bastide-escaped" : "data/../../../../../tmp/bastide-escaped", REGULAR, "");
	} else {
		memset(piece, 'A', sizeof piece);
		for (int i = 0; i < (strcmp(args[0], "stat") ? 4000 : 1); i++)
			tell(&agent_port, G_STDOUT, 0, stream, PIECE, PIECE);
	}
	memset(piece, 0, 8);
	tell(&agent_port, G_EXIT, 0, stream, 8, 8);
}

void __wrap_process_exec(uint32_t stream, uint8_t *bytes, size_t length)
{
	struct spec spec;
	/* Parsing is done in place, and the real agent will do it again. */
	uint8_t *copy = malloc(length);
	if (!copy || !spec_parse(&spec, memcpy(copy, bytes, length), length))
		return;
	if (spec.builtin && *kind) {
		lie(stream, spec.args);
	} else if (!spec.builtin && spec.args[1] && !strcmp(spec.args[0], "attack")) {
		snprintf(kind, sizeof kind, "%s", spec.args[1]);
		attack(stream);
	} else {
		__real_process_exec(stream, bytes, length);
	}
	free(copy);
}

size_t __wrap_system_stats(char *text, size_t size)
{
	if (!*kind)
		return __real_system_stats(text, size);
	memset(text, '=', size);
	return size;
}

void __wrap_shares_boot(int port)
{
	shares_port = port;
	__real_shares_boot(port);
}
