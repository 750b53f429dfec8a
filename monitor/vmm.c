/* vmm create --bundle DIR --pid-file FILE [--console-socket PATH] ID
 *
 * Called by conmon as it calls crun. Leaves one process that stands for the container: it starts QEMU
 * as the bundle's `plan` says, moves the main process's streams and ends with its exit code. */
#define _GNU_SOURCE
#include "vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

void fail(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

/* Send the terminal's master to conmon, as the OCI runtime's console socket wants it. */
static void send_terminal(const char *path, int master)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char control[CMSG_SPACE(sizeof(int))] = {0}, name[] = "/dev/ptmx";
	struct iovec data = {name, sizeof name - 1};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (strlen(path) >= sizeof address.sun_path)
		fail("the console socket's path is too long");
	strcpy(address.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
		fail("connect %s: %s", path, strerror(errno));
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &master, sizeof master);
	if (sendmsg(fd, &message, 0) < 0)
		fail("sendmsg %s: %s", path, strerror(errno));
	close(fd);
}

/* A raw pair: the line discipline that matters is the guest's. */
static int make_terminal(const char *socket_path)
{
	int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), unlock = 0;
	struct termios raw;
	if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0)
		fail("open /dev/ptmx: %s", strerror(errno));
	int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0 || tcgetattr(slave, &raw) < 0)
		fail("open of a terminal: %s", strerror(errno));
	cfmakeraw(&raw);
	tcsetattr(slave, TCSANOW, &raw);
	send_terminal(socket_path, master);
	close(master);
	return slave;
}

static void write_pid(const char *path, pid_t pid)
{
	FILE *file = fopen(path, "we");
	if (!file || fprintf(file, "%d", pid) < 0 || fclose(file) != 0)
		fail("write %s: %s", path, strerror(errno));
}

static const char *option(char **argv, const char *name)
{
	for (; *argv; argv++)
		if (!strcmp(*argv, name))
			return argv[1];
	return NULL;
}

/* Print the rate of the time stamp counter in kHz, measured against the clock: guests without other timers need it. */
static int print_tsc(void)
{
#ifdef __x86_64__
	struct timespec before, after;
	clock_gettime(CLOCK_MONOTONIC_RAW, &before);
	unsigned long long start = __builtin_ia32_rdtsc();
	usleep(100000);
	clock_gettime(CLOCK_MONOTONIC_RAW, &after);
	unsigned long long ticks = __builtin_ia32_rdtsc() - start;
	double seconds = (double)(after.tv_sec - before.tv_sec) + (double)(after.tv_nsec - before.tv_nsec) / 1e9;
	printf("%.0f\n", (double)ticks / seconds / 1000);
	return 0;
#else
	return 1;
#endif
}

int main(int argc, char **argv)
{
	static struct plan plan;
	const char *bundle = option(argv, "--bundle"), *pid_file = option(argv, "--pid-file");
	const char *console = option(argv, "--console-socket");
	if (argc == 2 && !strcmp(argv[1], "tsc"))
		return print_tsc();
	if (argc < 3 || strcmp(argv[1], "create") != 0 || !bundle || !pid_file)
		fail("usage: vmm create --bundle DIR --pid-file FILE [--console-socket PATH] ID");
	if (chdir(bundle) < 0)
		fail("chdir %s: %s", bundle, strerror(errno));
	plan_read(&plan, "plan");
	int terminal = console ? make_terminal(console) : -1, known[2];
	char told;
	if (pipe2(known, O_CLOEXEC) < 0)
		fail("pipe: %s", strerror(errno));
	pid_t pid = fork();
	if (pid < 0)
		fail("fork: %s", strerror(errno));
	if (pid > 0) {
		write_pid(pid_file, pid);
		return write(known[1], "", 1) == 1 ? 0 : 1;
	}
	/* Nobody would end a VM whose pid is written nowhere: the bundle may be removed at this moment. */
	close(known[1]);
	if (read(known[0], &told, 1) != 1)
		return 1;
	close(known[0]);
	setsid();
	if (terminal >= 0) {
		for (int fd = 0; fd < 3; fd++)
			dup2(terminal, fd);
		ioctl(0, TIOCSCTTY, 0);
		close(terminal);
	}
	pid_t hypervisor = plan.keeper < 0 ? hypervisor_start(&plan) : plan.hypervisor;
	write_pid("hypervisor", hypervisor);
	return streams_run(&plan, hypervisor, shares_start(&plan), console != NULL);
}
