/* What the parts of the agent know of each other. One process, one thread, one epoll. */
#ifndef BASTIDE_AGENT_H
#define BASTIDE_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "protocol.h"

#define ROOT "/container"	/* where the container's root file system is mounted */
#define MAIN_STREAM 0		/* the stream of the main process */
#define MAX_GROUPS 256
#define MAX_RLIMITS 32

/* Something in the epoll set. */
struct source {
	int fd;
	bool armed;
	void (*ready)(struct source *source, uint32_t events);
	void *owner;
};

/* A virtserialport: frames in, frames out. */
struct port {
	struct source source;
	uint8_t *in;
	size_t in_length;
	uint8_t *out;
	size_t out_start, out_length, out_size;
	uint8_t *message; /* a control message that comes in pieces */
	size_t message_length;
};

/* A list of fields, read one after the other. */
struct fields {
	uint8_t *at, *end;
};

struct field_value {
	uint8_t tag;
	uint32_t length;
	uint8_t *bytes; /* a zero follows */
};

/* A process as asked for. Its strings are the message's. */
struct spec {
	char **args, **env;
	char *cwd, *user, *groups;
	size_t groups_length;
	bool terminal, stdin_open, no_new_privileges, builtin, init;
	uint16_t rows, columns;
	uint64_t capabilities;
	int32_t oom_score;
	struct {
		uint32_t resource;
		uint64_t soft, hard;
	} rlimits[MAX_RLIMITS];
	unsigned rlimit_count;
};

/* What the main process may write to beyond its files. */
struct walls {
	bool privileged, readonly;
};

/* A process that runs, with its streams. */
struct process {
	struct process *next;
	struct port *port;
	uint32_t stream;
	uint32_t request; /* who waits for the answer to PREPARE, START or EXEC; 0 nobody */
	pid_t pid;
	struct source out, err, in, status;
	int go; /* write end: lets the prepared main process run */
	bool terminal, unlimited, exited, prepared, detached;
	uint32_t window;
	int code;
	bool oom;
	uint8_t *input;
	size_t input_length;
	bool input_eof;
};

/* What the child of a launch holds: its own ends. */
struct ends {
	int in, out, err, status, go;
};

/* agent.c */
extern struct port agent_port, stdio_port;
void die(const char *what);
void source_arm(struct source *source, uint32_t events);
void source_disarm(struct source *source);
void source_close(struct source *source);
void port_send(struct port *port, uint8_t type, uint32_t stream, const void *data, size_t length);
bool port_congested(const struct port *port);
uint8_t *port_reserve(struct port *port);
void port_commit(struct port *port, uint8_t type, uint32_t stream, size_t length);
void reply_done(uint32_t request, const void *data, size_t length);
void reply_error(uint32_t request, uint32_t kind, const char *text);

/* fields.c */
void fields_begin(void);
bool field_next(struct fields *fields, struct field_value *value);
char *field_text(const struct field_value *value);
uint32_t field_u32(const struct field_value *value);
uint64_t field_u64(const struct field_value *value);
char **field_list(const struct field_value *value);
bool spec_parse(struct spec *spec, uint8_t *bytes, size_t length);

/* process.c */
struct process *process_find(uint32_t stream);
void process_prepare(uint32_t request, uint8_t *bytes, size_t length);
void process_start(uint32_t request);
void process_exec(uint32_t stream, uint8_t *bytes, size_t length);
void process_input(uint32_t stream, const uint8_t *bytes, size_t length);
void process_input_eof(uint32_t stream);
void process_window(uint32_t stream, uint32_t credit);
void process_signal(uint32_t stream, int signal);
void process_resize(uint32_t stream, uint16_t rows, uint16_t columns);
void process_reap(void);
void process_collect(void);
void process_unblock(struct port *port);
void process_shutdown(uint32_t request);
void process_detach(void);
bool process_terminal(struct process *process, const struct spec *spec);
bool process_pipes(struct process *process, bool stdin_open, struct ends *ends);
bool process_reins(struct process *process, bool leader, struct ends *ends);
pid_t process_fork(void);
void ends_close(const struct ends *ends);

/* seed.c */
void seed_plant(void);
bool seed_grow(struct process *process, const struct spec *spec, uint8_t *bytes, size_t length);

/* launch.c: runs in the child, never returns */
extern int container_mounts; /* the container's mount namespace, -1 before the first exec in it */
void launch_enter(int status);
void launch_main(const struct spec *spec, const struct ends *ends) __attribute__((noreturn));
void launch_exec(const struct spec *spec, const struct ends *ends) __attribute__((noreturn));
void launch_fail(int status, uint32_t kind, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));

/* account.c */
struct account {
	uid_t uid;
	gid_t gid;
	gid_t groups[MAX_GROUPS];
	int group_count;
	char home[256];
};
const char *account_find(const char *user, const char *groups, size_t groups_length, struct account *account);

/* system.c */
void system_boot(void);
const char *system_configure(struct fields fields, bool whole, char *error, size_t size);
const char *system_mount(char *error, size_t size);
void system_flush(void);
void system_leave_limits(void);
int system_freeze(bool freeze);
int write_file(const char *path, const char *text);
int open_in_root(const char *path, int flags, bool make_directory);
bool system_oom_killed(bool killed);
void system_watch_memory(void);
size_t system_stats(char *text, size_t size);

extern struct walls system_walls;
extern int system_base, system_upper; /* the two trees below the overlay, for `changes`; -1 without disks */

/* archive_pack.c, archive_unpack.c */
int archive_pack(char **args);
int archive_unpack(char **args);

/* warm.c */
int warm(char **args);

/* shares.c */
void shares_boot(int port);
int shares_mount(const struct field_value *value);
void shares_flush(void);
void shares_hold(uint32_t request);
void shares_release(void);

/* rehearse.c */
extern int self_program;
void rehearse_boot(void);
bool rehearsing(char **argv);
int rehearse(char **args);

/* identity.c */
void identity_boot(void);
void identity_seed(const uint8_t *bytes, size_t length);
void identity_time(uint64_t nanoseconds);

/* network.c */
void network_boot(void);
const char *network_configure(char *lines, char *error, size_t size);

/* builtin.c: functions of the agent that run in a child inside the container's root */
int builtin_run(char **args);

#endif
