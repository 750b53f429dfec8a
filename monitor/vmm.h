/* The VM monitor: for conmon an OCI runtime's `create`, then the process that is the container. */
#ifndef BASTIDE_VMM_H
#define BASTIDE_VMM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define MAX_FDS 64
#define MAX_VIEW 32
#define MAX_ARGUMENTS 512
#define MAX_SHARES 256
#define MAX_TAPS 16
#define MAX_COMMANDS 16

/* A descriptor that QEMU gets: `ours` here, `number` there. */
struct grant {
	int ours, number;
};

/* A volume or bind mount. `within`: a path that is looked up in the tree and cannot lead out of it. */
struct share {
	char *path, *within;
	bool readonly, readonly_below, recursive, slave;
	int tree; /* a detached mount */
};

/* What QEMU is told, and the descriptor that goes with it (-1: none). */
struct command {
	char *text;
	int fd;
};

/* What the file `plan` in the bundle says; hypervisor/plan.py writes it. */
struct plan {
	char *arguments[MAX_ARGUMENTS + 1];
	int argument_count;
	struct grant grants[MAX_FDS];
	int grant_count;
	char *cgroups[32];
	int cgroup_count;
	char *preload;
	char *view[MAX_VIEW]; /* what QEMU sees of the host's files */
	int view_count;
	uid_t uid;
	bool resync; /* the guest was saved amid its streams: skip what was for another monitor */
	bool leash; /* end when our stdin does: whoever started us is gone */
	int stdio;  /* our end of the guest's stdio port */
	int agent;  /* our end of the agent's port: handed to whoever connects to `vendor` */
	int vendor; /* listening socket */
	int console; /* what the guest's serial port and QEMU itself print */
	int console_theirs;
	int setup; /* a QMP channel of ours, -1 when there is none */
	struct command commands[MAX_COMMANDS]; /* what is sent on it at once, without waiting for answers */
	int command_count;
	struct share shares[MAX_SHARES];
	int share_count;
	int share_socket; /* the file server's end of the guest's port */
	int taps[MAX_TAPS]; /* QEMU's, for whoever gives them another device */
	int tap_count, attached;
	int keep; /* listening socket for the monitor that takes QEMU over, -1 when it is ours for good */
	int keeper; /* whose child QEMU is, when we took it over, -1 when it is ours */
	pid_t hypervisor; /* the one that was taken over */
};

/* vmm.c */
void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* vmm_plan.c */
void plan_read(struct plan *plan, const char *path);

/* vmm_view.c */
void view_enter(const struct plan *plan);

/* vmm_hypervisor.c */
void enter_cgroups(const struct plan *plan);
pid_t hypervisor_start(const struct plan *plan);
bool hypervisor_ended(const struct plan *plan, pid_t hypervisor, int *status);
void hypervisor_kill(const struct plan *plan, pid_t hypervisor, int *status);

/* vmm_keep.c */
void keep_hand_over(const struct plan *plan, pid_t hypervisor, int signals);
void keep_adopt(struct plan *plan, const char *path);
void keep_attach(struct plan *plan, const char *name);
void keep_enter(const struct plan *plan);

/* shares_start.c */
void shares_open(struct plan *plan);
pid_t shares_start(struct plan *plan);
void shares_end(pid_t server);

/* vmm_streams.c */
int streams_run(const struct plan *plan, pid_t hypervisor, pid_t server, bool terminal);

#endif
