/* join PID-FILE INTO... -- BACK... -- PROGRAM ARGUMENT...
 *
 * Runs an OCI runtime's detached exec inside a container's version 1 cgroups and stands for the process that it
 * leaves: ends with that one's exit code, 128+n for signal n. INTO and BACK are `tasks` files.
 *
 * A thread that moves itself (a 0 written to `tasks`) takes no lock of the whole system; a move of another process, as
 * the runtime makes it, waits for an RCU grace period of some 10 ms (kernel/cgroup/cgroup.c,
 * cgroup_procs_write_start). The runtime's children begin where it is itself.
 *
 * PROGRAM writes the pid to PID-FILE.new; PID-FILE appears when the process is a child of this one. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* The process in the container, once there is one: it does not run without us. */
static pid_t process;

static void fail(const char *what, const char *on)
{
	fprintf(stderr, "join: %s %s: %s\n", what, on, strerror(errno));
	if (process > 0)
		kill(process, SIGKILL);
	exit(1);
}

/* Move to every group up to the next `--`; gives what comes after it. */
static char **move(char **words)
{
	for (; *words && strcmp(*words, "--"); words++) {
		int fd = open(*words, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, "0", 1) != 1)
			fail("enter the cgroup", *words);
		close(fd);
	}
	if (!*words) {
		errno = EINVAL;
		fail("read", "the command line");
	}
	return words + 1;
}

static int code_of(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int wait_for(pid_t pid)
{
	int status;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			fail("wait for", "the process");
	return code_of(status);
}

static pid_t read_pid(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
		fail("read", path);
	close(fd);
	return atoi(text);
}

int main(int count, char **words)
{
	if (count < 6) {
		errno = EINVAL;
		fail("read", "the command line");
	}
	const char *pid_file = words[1];
	char *fresh;
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 || asprintf(&fresh, "%s.new", pid_file) < 0)
		fail("prepare", pid_file);
	char **back = move(words + 2), **program = back;
	while (*program && strcmp(*program, "--"))
		program++;
	if (!*program++ || !*program) {
		errno = EINVAL;
		fail("read", "the command line");
	}
	pid_t runtime;
	errno = posix_spawn(&runtime, program[0], NULL, NULL, program, environ);
	if (errno)
		fail("run", program[0]);
	int code = wait_for(runtime);
	if (code)
		return code;
	process = read_pid(fresh);
	move(back);
	if (rename(fresh, pid_file) < 0)
		fail("rename", fresh);
	for (int fd = 0; fd < 3; fd++)
		close(fd);
	return wait_for(process);
}
